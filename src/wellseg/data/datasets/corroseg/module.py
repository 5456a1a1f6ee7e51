"""Reads CorroSeg in the challenge's layout, x_train/, y_train.csv, x_test/, as whole wells."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from wellseg.data.datasets.corroseg.files import write_fake
from wellseg.data.datasets.roots import check_root
from wellseg.data.io.label_table import LabelTable, parse_label_map, read_labels
from wellseg.data.module import Submission
from wellseg.data.wells.findings import restoration_problems
from wellseg.data.wells.module import WellDataModule
from wellseg.data.wells.patches import (
    PATCH_SHAPE,
    PatchedWell,
    PatchFile,
    by_well,
    list_patches,
    parse_name,
    read_images,
    shape_problem,
)
from wellseg.data.wells.restore import Restored, restore_well
from wellseg.data.wells.well import Well
from wellseg.errors import DataError
from wellseg.problems import Problem, extra_labels_problem, missing_labels_problem, number_ranges, raise_errors

LAYOUTS = {"corroseg": ("x_train", "x_test"), "corroseg_course": ("train", "validation")}
"""Folders that identify a layout of CorroSeg, by the value of data= that reads it."""

FIRST_RELEASE_SHIFT = 450
"""Offset in patches by which the first release of y_train.csv numbered well 1 too high."""


def read_corroseg(
    root: str | Path | None,
    *,
    azimuth_layout: str = "auto",
    label_map: Mapping[float, int] | None = None,
    strict: bool = False,
    fake: bool = False,
) -> tuple[list[Well], list[Problem]]:
    """Reads training wells `well_i` with labels, `test_well_i` without, and the findings.

    root            folder with x_train/ and y_train.csv, x_test/, or both
    azimuth_layout  see wellseg.data.wells.restore.restore_well
    label_map       {value in y_train.csv: 0, 1 or IGNORE}
    strict          labels without an image are errors
    fake            write the small dummy set (wellseg.data.datasets.corroseg.files) to `root` first where `root` is
                    empty
    Nothing else is written. Raises ConfigError for an unknown setting; faults of the data are listed.
    """
    parse_label_map(label_map)
    if fake and root is not None:
        write_fake(root, layout="challenge")
    root, problems = check_layout(root, "data=corroseg", LAYOUTS["corroseg"])
    if root is None:
        return [], problems
    patched: list[PatchedWell] = []
    if (root / "x_train").is_dir():
        train, found = _read_train(root, label_map, strict)
        patched += train
        problems += found
    else:
        problems.append(
            Problem("warning", "there is no x_train/: no well has labels", where=str(root), fix="add x_train/")
        )
    if (root / "x_test").is_dir():
        files, found = list_patches(root / "x_test")
        arrays, bad = read_images(files)
        wells, wrong = gather_wells(files, arrays, "test_well_{}", "test")
        patched += wells
        problems += found + bad + wrong
    else:
        problems.append(Problem("note", "there is no x_test/: no wells to predict for the challenge", where=str(root)))
    restored, found = restore_all(patched, azimuth_layout)
    return [w for r in restored for w in r.wells], problems + found


def check_layout(root: str | Path | None, choice: str, folders: Sequence[str]) -> tuple[Path | None, list[Problem]]:
    """Checks the root, and names the other choice of data where the folder has the other layout.

    See wellseg.data.datasets.roots.check_root.
    """
    found, problems = check_root(root, choice, folders)
    if found is None and root is not None:
        for other, its_folders in LAYOUTS.items():
            if choice != f"data={other}" and any((Path(root).expanduser() / f).is_dir() for f in its_folders):
                fix = f"data={other} reads this layout"
                problems = [Problem(p.severity, replace(p.message, fix=fix), fault=p.fault) for p in problems]
    return found, problems


def gather_wells(
    files: Sequence[PatchFile], images: Mapping[PatchFile, np.ndarray], name: str, part: str
) -> tuple[list[PatchedWell], list[Problem]]:
    """Groups images into unlabelled wells; `name` is a format string of the well's number."""
    wells: dict[int, PatchedWell] = {}
    problems = []
    for file in files:
        if (image := images.get(file)) is None:
            continue
        if problem := shape_problem(image, file.path, None, ""):
            problems.append(problem)
            continue
        wells.setdefault(file.well, PatchedWell(name.format(file.well))).add(file, image, part)
    return by_well(wells), problems


def restore_all(patched: Sequence[PatchedWell], azimuth_layout: str) -> tuple[list[Restored], list[Problem]]:
    """Restores wells; returns them with findings, among them an error for each failed well."""
    restored, problems = [], []
    for well in patched:
        try:
            restored.append(restore_well(well, azimuth_layout=azimuth_layout))
        except DataError as error:
            problems.append(Problem.from_error(error, fault=10))
    return restored, problems + restoration_problems(restored)


def _read_train(
    root: Path, label_map: Mapping[float, int] | None, strict: bool
) -> tuple[list[PatchedWell], list[Problem]]:
    files, problems = list_patches(root / "x_train")
    images, bad = read_images(files)
    problems += bad
    csv = root / "y_train.csv"
    if csv.exists():
        table, found = read_labels(csv, num_pixels=PATCH_SHAPE[0] * PATCH_SHAPE[1], label_map=label_map)
        problems += found
    else:
        table = LabelTable(np.zeros((0, PATCH_SHAPE[0] * PATCH_SHAPE[1]), dtype=np.uint8))
        problems.append(
            Problem(
                "error",
                "there is no y_train.csv",
                where=str(root),
                why="x_train/ has images to be labelled",
                fix="add it",
            )
        )
    row_of, found = drop_first_release_rows(table.row_of, files)
    problems += found
    wells: dict[int, PatchedWell] = {}
    unlabelled = []
    for file in files:
        row = row_of.get(file.name)
        well = wells.setdefault(file.well, PatchedWell(f"well_{file.well}", labels={}))
        if row is None:
            unlabelled.append(file.name)
        if (image := images.get(file)) is None:
            continue
        place = f"{csv}, line {table.lines[row]}" if row is not None else ""
        if problem := shape_problem(image, file.path, PATCH_SHAPE if row is not None else None, place):
            problems.append(problem)
            continue
        well.add(file, image, "train", None if row is None else table.values[row].reshape(PATCH_SHAPE))
    # Without any row, the file itself is the fault and already listed.
    if unlabelled and table.row_of:
        problems.append(missing_labels_problem(unlabelled, str(csv)))
    extra = sorted(row_of.keys() - {f.name for f in files}, key=lambda n: parse_name(n) or (0, 0))
    if extra:
        problems.append(extra_labels_problem(extra, str(csv), strict))
    return [w for w in by_well(wells) if w.values], problems


def drop_first_release_rows(
    row_of: Mapping[str, int], files: Sequence[PatchFile]
) -> tuple[dict[str, int], list[Problem]]:
    """Corrects the rows of the challenge's first release and returns a warning about it.

    That release labels a well 0 without images, and numbers the patches of well 1 from 450, after 450 unrelated rows.
    Rows of well 0 are dropped where well 0 has no images. Well 1 is renumbered where at least half of its images have a
    label numbered 450 higher, while no image has such a number.
    """
    images = {n: {f.index for f in files if f.well == n} for n in (0, 1)}
    labels: dict[int, dict[int, int]] = {n: {} for n in (0, 1)}
    for name, row in row_of.items():
        numbers = parse_name(name)
        if numbers and numbers[0] in labels:
            labels[numbers[0]][numbers[1]] = row
    kept, changes = dict(row_of), []
    if labels[0] and not images[0]:
        for k in labels[0]:
            del kept[f"well_0_patch_{k}"]
        changes.append(f"well_0_patch_{number_ranges(labels[0])} dropped: there is no well 0")
    shifted = {k for k in images[1] if k + FIRST_RELEASE_SHIFT in labels[1]}
    if images[1] and max(images[1]) < FIRST_RELEASE_SHIFT and 2 * len(shifted) >= len(images[1]):
        for k in labels[1]:
            del kept[f"well_1_patch_{k}"]
        high = [k for k in labels[1] if k >= FIRST_RELEASE_SHIFT]
        kept |= {f"well_1_patch_{k - FIRST_RELEASE_SHIFT}": labels[1][k] for k in high}
        low = [k for k in labels[1] if k < FIRST_RELEASE_SHIFT]
        changes.append(f"well_1_patch_{number_ranges(low) or 'none'} dropped, {number_ranges(high)} renumbered by -450")
    if not changes:
        return kept, []
    warning = Problem(
        "warning",
        "y_train.csv is of the challenge's first release; its wrong rows were corrected",
        where="\n".join(changes),
        why="that release labelled a well that does not exist and shifted well 1 by 450",
        fix="download y_train.csv again",
        fault=5,
    )
    return kept, [warning]


class CorroSegDataModule(WellDataModule):
    """Serves windows of the challenge's wells; see wellseg.data.wells.module and `read_corroseg`."""

    submission: ClassVar[Submission | None] = {
        "format": "pixels",
        "length": PATCH_SHAPE[0] * PATCH_SHAPE[1],
        "classes": 2,
        "sorted": True,
        "names": "well_i_patch_j",
    }

    def read(self) -> tuple[list[Well], list[Problem]]:
        """Reads x_train/, y_train.csv and x_test/ of the challenge's layout."""
        return read_corroseg(
            self.root,
            azimuth_layout=self.azimuth_layout,
            label_map=self.label_map,
            strict=self.strict,
            fake=self.fake,
        )

    def submission_rows(self) -> dict[str, tuple[int, int]]:
        """Returns (36, 36) for every patch of x_test/, by name; raises DataError where the folder is missing."""
        root, problems = check_layout(self.root, "data=corroseg", ("x_test",))
        raise_errors(problems)
        assert root is not None, "no root is an error"
        return {f.name: PATCH_SHAPE for f in list_patches(root / "x_test")[0]}
