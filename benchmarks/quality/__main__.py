"""Scores models on real wells, measures their consistency and cost. Writes README.md and figures.

    python -m benchmarks.quality                               # unpacks ../shared/data, trains all that is missing
    python -m benchmarks.quality --root DIR --runs KEPT --seeds 3 --finished       # scores what is there, trains nothing
    python -m benchmarks.quality --only student_turns basic_unet --output DIR      # a page of two models

Every run is a subprocess of `python -m wellseg.train` on one core, kept in RUNS/<model>_<seed> and used again while its
configuration is the one asked for; until its validation score has reached a plateau it goes on in RUNS/<model>_<seed>_cycle2
and so on. What is measured of it is measured anew each time. The script writes what lies between
the page's `<!-- begin x -->` and `<!-- end x -->`; the text around them is written by hand and kept.
"""

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.common.blocks import fill
from benchmarks.common.page import header as machine
from benchmarks.common.page import progress
from benchmarks.common.runs import ROOT, published_student, unpack
from benchmarks.quality.drawing import (
    CREDIT,
    LEAST_LABELLED,
    draw_curves,
    draw_models,
    draw_section,
    middling_section,
)
from benchmarks.quality.mapping import mapping_table
from benchmarks.quality.options import options_table
from benchmarks.quality.precision import collect as collect_precisions
from benchmarks.quality.precision import precision_table
from benchmarks.quality.runs import (
    COMMON,
    FOLD,
    MODELS,
    MOST_CYCLES,
    NUM_FOLDS,
    PLATEAU,
    REAL,
    SYNTHETIC,
    Model,
    Run,
    collect,
)
from benchmarks.quality.scores import Patches, Quality, measure
from benchmarks.quality.tables import consistency_table, cost_table, plateau_table, scores_table, wells_table
from wellseg.data.datasets.corroseg.module import CorroSegDataModule

HERE = Path(__file__).resolve().parent
BASELINE = "student_turns"
OPTIONS_OF = ("student_turns", "student_cylinder", "cylinder_144")
SPUN = "cylinder_36"
"""The model whose consistency is measured with tta=starts, too."""
MAPPING_OF = ("student_cylinder", "cylinder_144", "synthetic_cylinder_36")
PUBLISHED = "published student 1004"
TEMPLATE = HERE / "template.md"
"""What a new page begins with: its text and empty blocks."""
PARTS = ("train", "validation", "test")


def header(real: CorroSegDataModule, models: Sequence[Model], seeds: int, cycles: int) -> str:
    wells = {p: sorted({w.group for w in real.wells if real.parts.get(w.name) == p}, key=number) for p in PARTS}
    assigned = "; ".join(f"{p}: wells {', '.join(str(number(w)) for w in names)}" for p, names in wells.items())
    settings = "\n".join(f"  - {m.label}: `{' '.join(m.overrides)}`" for m in models)
    return "\n".join(
        [
            *machine(("torch", "pytorch-lightning", "monai", "numpy")),
            f"- Data: CorroSeg (SLB / ENS challenge data no. 144), silver labels; `{' '.join(REAL)}`. {assigned}.",
            f"- Common settings: `{' '.join(COMMON)}`; seeds 0 to {seeds - 1}, as far as the runs were there. Added to them:",
            settings,
            "- Trained to a plateau: while the last quarter of its epochs has raised a run's best validation Dice by "
            f"{PLATEAU} or more,",
            "  it goes on with another cycle of the schedule from its best weights (`pretrained=`), "
            f"{cycles} cycles at most.",
            "  Scored are the weights with the best validation Dice of all its cycles.",
            f"- Synthetic training wells: `{' '.join(SYNTHETIC)}`.",
        ]
    )


def number(well: str) -> int:
    return int(well.rpartition("_")[2])


def measured(
    found: Mapping[Model, Sequence[Run]], reference: Path | None, validation: Patches, test: Patches
) -> tuple[dict[Model, list[Quality]], dict[str, list[Quality]], Quality | None]:
    """What all runs are worth, each measured on a core of its own; SPUN with the mean over all starts by label; and the
    model file `reference`.
    """
    # fork: every process has the data already.
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("fork")) as pool:

        def ask(name: str, file: Path, **how: bool) -> Future[Quality]:
            asked = pool.submit(measure, file, validation, test, **how)
            asked.add_done_callback(lambda _: progress(f"measured {name}"))
            return asked

        asked = {}
        for model, runs in found.items():
            for number, run in enumerate(runs):
                # How consistent a model is, hangs on its making, not on its seed.
                more = model.real and number == 0
                how = {"restored": model.restored, "synthetic": not model.real, "more": more}
                asked.setdefault(model, []).append(ask(run.name, run.file, **how))
        spun = {
            f"{m.label}, tta=starts": [ask(f"{m.name} from all starts", runs[0].file, spun=True)]
            for m, runs in found.items()
            if m.name == SPUN
        }
        last = None if reference is None else ask("the published student", reference, restored=False)
        results = [{k: [a.result() for a in all_] for k, all_ in part.items()} for part in (asked, spun)]
        return *results, last and last.result()


# --- the page ---------------------------------------------------------------------------------------------------------


def section_picture(results: Mapping[Model, Sequence[Quality]], test: Patches, path: Path) -> str:
    """Draw the course's student beside the unet_cylinder that validation found best; the caption."""
    baseline = next((m for m in results if m.name == BASELINE), None)
    ours = [m for m in results if m.name.startswith("cylinder")]
    if baseline is None or not ours:
        return "(Needs runs of the course's student and of a unet_cylinder.)"
    best = max(ours, key=lambda m: results[m][0].validation)
    section = middling_section(test.wells, results[baseline][0])
    draw_section(section, {m.label: results[m][0] for m in (baseline, best)}, path)
    return (
        f"Rows {section.start} to {section.rows.stop - 1} of {section.well.name}, a test well. Of all sections of this "
        f"length without gaps and with at least {100 * LEAST_LABELLED:.0f} % labelled pixels it is the one at the median "
        f"of the course student's Dice. Both models: seed 0; of the unet_cylinder models the one with the best Dice on "
        f"validation. {CREDIT}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="real wells in the challenge's layout; unpacked when not given")
    parser.add_argument("--runs", type=Path, default=ROOT / "outputs" / "quality", help="folder of the runs")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the page")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices={m.name: 0 for m in MODELS}, help="models to look at"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--cycles", type=int, default=MOST_CYCLES, help="that a run goes on for before its plateau, at most"
    )
    parser.add_argument("--finished", action="store_true", help="train nothing: leave out runs that are not there")
    options = parser.parse_args()
    if options.cycles < 1:
        parser.error("--cycles: at least 1")
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    chosen = [m for m in MODELS if not options.only or m.name in options.only]
    with tempfile.TemporaryDirectory(prefix="quality_") as temporary:
        folder = Path(temporary)
        root = (options.root or unpack(folder / "wells")).resolve()
        train = not options.finished
        found = collect(chosen, options.seeds, options.runs.resolve(), root, train=train, cycles=options.cycles)
        if not found:
            raise SystemExit(f"{options.runs} holds no finished run of {', '.join(m.name for m in chosen)}")
        precisions = collect_precisions(options.runs.resolve(), options.seeds, train=train)
        real = CorroSegDataModule(root=str(root), num_folds=NUM_FOLDS, fold=FOLD)
        real.setup()
        validation, test = Patches.of(real, "validation"), Patches.of(real, "test")
        reference = published_student(folder / "published.safetensors")
        results, spun, at_reference = measured(found, reference, validation, test)
        mine = {m.label: q for m, q in results.items() if m.real}
        rows = dict(mine) if at_reference is None else {**mine, PUBLISHED: [at_reference]}
        synthetic = {m.label: q for m, q in results.items() if not m.real}
        trained = list({m.name: m for m in reversed(found)}.values())[::-1]  # of rows with the same runs the first one
        curves = {m.label: [run.curve for run in found[m]] for m in trained}
        files = {m.label: found[m][0].file for m in trained if m.real}
        baseline = next((m.label for m in found if m.name == BASELINE), next(iter(files), None))
        figures = options.output / "figures"
        figures.mkdir(parents=True, exist_ok=True)
        longest = max(test.wells.values(), key=lambda w: w.num_rows)
        nothing = "(No such run.)"
        blocks = {
            "header": header(real, list(found), options.seeds, options.cycles),
            "scores": scores_table(rows),
            "wells": wells_table(rows, test),
            "consistency": consistency_table({**rows, **spun}),
            "cost": cost_table(files, baseline, longest) if files else nothing,
            "synthetic": scores_table(synthetic) if synthetic else nothing,
            "options": options_table(
                {m.label: found[m][0].file for m in trained if m.name in OPTIONS_OF},
                {m.label: results[m][0].threshold for m in trained},
                test,
            ),
            "mapping": mapping_table({m.label: found[m][0].file for m in trained if m.name in MAPPING_OF}),
            "precision": precision_table(precisions) if all(precisions.values()) else nothing,
            "plateau": plateau_table(curves),
            "section": section_picture(results, test, figures / "section.png"),
        }
        draw_curves(curves, figures / "curves.png")
        draw_models(rows, figures / "models.png")
    page = options.output / "README.md"
    page.write_text(fill((page if page.is_file() else TEMPLATE).read_text(), blocks, page.name))
    progress(f"wrote {page}")


if __name__ == "__main__":
    main()
