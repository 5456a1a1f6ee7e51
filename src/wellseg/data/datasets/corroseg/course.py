"""Reads CorroSeg in the course's layout as whole wells.

The layout is train|validation/{images,labels}/*.npy and test/images/*.npy.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from wellseg.data.datasets.corroseg.files import write_fake
from wellseg.data.datasets.corroseg.module import check_layout, restore_all
from wellseg.data.io.label_table import map_labels, offending_values_problem, parse_label_map
from wellseg.data.wells.checks import folder_leaks
from wellseg.data.wells.module import WellDataModule
from wellseg.data.wells.patches import (
    PatchedWell,
    PatchFile,
    by_well,
    list_patches,
    read_images,
    read_patches,
    shape_problem,
)
from wellseg.data.wells.well import Well
from wellseg.problems import Problem, extra_labels_problem, list_names, missing_labels_problem

LABELLED_PARTS = ("train", "validation")


def read_corroseg_course(
    root: str | Path | None,
    *,
    azimuth_layout: str = "auto",
    label_map: Mapping[float, int] | None = None,
    strict: bool = False,
    split: str = "wells",
    fake: bool = False,
) -> tuple[list[Well], list[Problem]]:
    """Reads wells `well_i` of train/ and validation/, `test_well_i` of test/, and the findings.

    A well with patches in both folders is restored from both. That is a leak: an error under split="original",
    which trains and validates on these folders, a warning otherwise. `Well.split` is the folder's name,
    or "train+validation" for such a well. The other arguments are those of
    wellseg.data.datasets.corroseg.module.read_corroseg.
    """
    mapping = parse_label_map(label_map)
    if fake and root is not None:
        write_fake(root, layout="course")
    root, problems = check_layout(root, "data=corroseg_course", (*LABELLED_PARTS, "test"))
    if root is None:
        return [], problems
    wells: dict[int, PatchedWell] = {}
    taken: dict[str, tuple[PatchFile, np.ndarray, str]] = {}
    copies: list[str] = []
    for part in LABELLED_PARTS:
        if not (root / part).is_dir():
            problems.append(Problem("note", f"there is no {part}/", where=str(root)))
            continue
        for file, image, label in _read_part(root / part, mapping, strict, problems):
            if file.name in taken:
                problems += _second_copy(taken[file.name], (file, image, part), copies)
                continue
            taken[file.name] = (file, image, part)
            wells.setdefault(file.well, PatchedWell(f"well_{file.well}", labels={})).add(file, image, part, label)
    severity = "error" if split == "original" else "warning"
    if copies:
        problems.append(_copies_problem(copies, severity))
    test: dict[int, PatchedWell] = {}
    if (root / "test").is_dir():
        for file, image, label in _read_part(root / "test", mapping, strict, problems, optional_labels=True):
            test.setdefault(file.well, PatchedWell(f"test_well_{file.well}")).add(file, image, "test", label)
    restored, found = restore_all(by_well(wells) + by_well(test), azimuth_layout)
    for r in restored:
        found += folder_leaks(r.name, r.names, r.parts, paired=r.paired, severity=severity)
    return [w for r in restored for w in r.wells], problems + found


def _read_part(
    folder: Path, mapping: Mapping[float, int], strict: bool, problems: list[Problem], *, optional_labels: bool = False
) -> list[tuple[PatchFile, np.ndarray, np.ndarray | None]]:
    """Reads the images of one folder with their labels, well by well; adds faults to `problems`."""
    if not (folder / "images").is_dir():
        problems.append(
            Problem(
                "error", f"there is no {folder.name}/images/", where=str(folder), fix="add it, or remove this folder"
            )
        )
        return []
    files, found = list_patches(folder / "images")
    images, bad = read_images(files)
    problems += found + bad
    labels_folder = folder / "labels"
    if not labels_folder.is_dir():
        if not optional_labels:
            what = f"there is no {folder.name}/labels/"
            problems.append(
                Problem(
                    "error", what, where=str(folder), why="every training image needs its mask", fix="add it", fault=6
                )
            )
        return [(f, images[f], None) for f in files if f in images and _fits(images[f], f, None, "", problems)]
    label_files, found = list_patches(labels_folder)
    labels, bad = read_patches(label_files, kinds="fiub")
    problems += found + bad
    label_of = {f.name: f for f in label_files}
    missing = [f.name for f in files if f.name not in label_of]
    if missing:
        problems.append(missing_labels_problem(missing, str(labels_folder)))
    image_names = {f.name for f in files}
    extra = [f.name for f in label_files if f.name not in image_names]
    if extra:
        problems.append(extra_labels_problem(extra, str(labels_folder), strict))
    masks = _masks(labels, mapping, labels_folder, problems)
    read = []
    for file in files:
        if file not in images:
            continue
        label_file = label_of.get(file.name)
        mask = None if label_file is None else masks.get(label_file)
        if _fits(images[file], file, mask, "" if label_file is None else label_file.path, problems):
            read.append((file, images[file], mask))
    return read


def _fits(
    image: np.ndarray, file: PatchFile, mask: np.ndarray | None, label_path: str, problems: list[Problem]
) -> bool:
    problem = shape_problem(image, file.path, None if mask is None else mask.shape, label_path)
    if problem:
        problems.append(problem)
    return problem is None


def _masks(
    labels: Mapping[PatchFile, np.ndarray], mapping: Mapping[float, int], folder: Path, problems: list[Problem]
) -> dict[PatchFile, np.ndarray]:
    """Maps every label file to class indices; unmapped values make one error for the folder."""
    masks, total, where = {}, None, []
    for file, values in labels.items():
        masks[file], offending = map_labels(values, mapping)
        if offending:
            total = offending if total is None else total + offending
            where.append(f"{file.name}.npy")
    if total:
        problems.append(offending_values_problem(total, f"{folder}\n{list_names(where)}"))
    return masks


def _second_copy(
    first: tuple[PatchFile, np.ndarray, str], second: tuple[PatchFile, np.ndarray, str], copies: list[str]
) -> list[Problem]:
    """Returns an error for a patch with two contents; adds identical copies to `copies`."""
    if first[1].tobytes() == second[1].tobytes():
        copies.append(first[0].name)
        return []
    return [
        Problem(
            "error",
            f"two different images are named {first[0].name}",
            where=f"{first[0].path}\n{second[0].path}",
            why=f"{first[2]} and {second[2]} would be merged into one well",
            fix="remove or rename one of them",
        )
    ]


def _copies_problem(names: list[str], severity: str) -> Problem:
    return Problem(
        severity,
        f"leak: {names[0]} is in train and in validation" + (f", as are {len(names) - 1:,} more" if names[1:] else ""),
        where=list_names(names),
        why="training data would be scored as if the model had not seen them",
        fix="data.split=wells uses each patch once and assigns each well to one split",
        fault=12,
    )


class CorroSegCourseDataModule(WellDataModule):
    """Serves wells in the course's layout; see wellseg.data.wells.module and `read_corroseg_course`."""

    def read(self) -> tuple[list[Well], list[Problem]]:
        """Reads the folders train, validation and test of the course's layout."""
        return read_corroseg_course(
            self.root,
            azimuth_layout=self.azimuth_layout,
            label_map=self.label_map,
            strict=self.strict,
            fake=self.fake,
            split=self.split,
        )
