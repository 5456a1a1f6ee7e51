"""Measures bytes, Dice and masks of quantized models on real wells. Writes README.md and figures.

    python -m benchmarks.quantization                      # unpacks ../shared/data, makes all that is missing
    python -m benchmarks.quantization --only course4 int4  # of these settings, what is missing; the page has all there are
    python -m benchmarks.quantization --finished           # makes nothing: the page from what is there

Works on models that `benchmarks.quality` trained (MODELS/student_cylinder_<seed>), on MODELS/wide_flex_<seed>, trained
alike with model.thickness=21, and on the published student. What is made is kept in RUNS/<model>/<setting>. The script
writes what lies between the page's `<!-- begin x -->` and `<!-- end x -->`; the text around them is written by hand and kept.
"""

import argparse
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.common.blocks import fill
from benchmarks.common.page import cpu, progress
from benchmarks.common.runs import ROOT, published_student, unpack
from benchmarks.quantization.drawing import draw_curve, draw_layers
from benchmarks.quantization.runs import CURVE, SPLIT, TABLE, Setting, Source
from benchmarks.quantization.tables import NOTHING, Result, curve_table, million_table, rows_table, targets_table

HERE = Path(__file__).resolve().parent
SEEDS = 3
SETTINGS = {s.name: s for s in (*TABLE, *CURVE)}
LAYERS_OF = ("course4", "int4", "mixed")
STUDENT, PUBLISHED = "student", "published"
LABELS = {STUDENT: "student", PUBLISHED: "published 1004"}


def student(seed: int, options: argparse.Namespace, root: Path) -> Source:
    """The student of benchmarks/quality."""
    name = STUDENT if seed == 0 else f"{STUDENT}_{seed}"
    return Source(name, options.models / f"student_cylinder_{seed}" / "model.safetensors", options.runs, root, seed)


def wide(seed: int, options: argparse.Namespace, root: Path) -> Source:
    """The same network, about one and three quarters times as large."""
    path = options.models / f"wide_flex_{seed}" / "model.safetensors"
    return Source(f"wide_{seed}", path, options.runs, root, seed)


def published(options: argparse.Namespace, root: Path) -> Source:
    """The course's published student, imported where its weights lie and it was not yet."""
    path = options.runs / "published_1004.safetensors"
    if not path.is_file():
        published_student(path)
    return Source(PUBLISHED, path, options.runs, root)


def collect(source: Source, settings: Sequence[Setting], make: Sequence[str]) -> dict[str, Result | None]:
    """Results by name of the setting, made where they are missing and named in `make`; None for what is not there."""
    found = {}
    for setting in settings:
        if setting.name in make:
            progress(f"{source.name}, {setting.name}")
        found[setting.name] = source.result(setting, make=setting.name in make)
    return found


def duel(seed: int, options: argparse.Namespace, root: Path, make: Sequence[str]) -> tuple[Result, Result] | None:
    """The larger network at 4 bits and the student at 8, of one seed; None unless both are there."""
    found = []
    for source, name in ((wide(seed, options, root), "int4"), (student(seed, options, root), "int8")):
        if not source.path.is_file():
            return None
        result = collect(source, [SETTINGS[name]], make)[name]
        if result is None:
            return None
        found.append({**result, "parameters": source.parameters})
    return found[0], found[1]


def by_method(results: Mapping[str, Result | None]) -> dict[str, list[tuple[str, Result]]]:
    """Curves: what was made of each method."""
    found: dict[str, list[tuple[str, Result]]] = {}
    for name, result in results.items():
        if result is not None:
            found.setdefault(SETTINGS[name].method, []).append((name, result))
    return found


def header(sources: Sequence[Source], split: Mapping[str, Sequence[int]]) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "safetensors"))
    data = " ".join(f"data.{key}={value}" for key, value in SPLIT.items())
    assigned = "; ".join(f"{part}: wells {', '.join(map(str, numbers))}" for part, numbers in split.items())
    files = "; ".join(f"{s.name}: sha256 {s.sha256[:12]}..." for s in sources)
    return "\n".join(
        [
            f"- Hardware: {cpu()}, {len(os.sched_getaffinity(0))} cores, one thread, no GPU used. Nothing here is a time.",
            f"- Versions: Python {platform.python_version()}, {packages}.",
            "- Command: `python -m benchmarks.quantization`. Each row is what `python -m wellseg.quantize",
            "  artifact=F quant=NAME quant.max_dice_drop=null` writes; the gate is off, so that no layer is widened.",
            f"- Data: CorroSeg (SLB / ENS challenge data no. 144), silver labels; `data=corroseg {data}`; {assigned}.",
            "  Calibration and fine-tuning see windows of training wells only. Thresholds are the models' own.",
            f"- Models: {files}.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quantization",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, help="real wells in the challenge's layout; unpacked when not given")
    parser.add_argument("--models", type=Path, default=ROOT / "outputs" / "quality", help="runs of benchmarks.quality")
    parser.add_argument("--runs", type=Path, default=ROOT / "outputs" / "quantization", help="folder of what is made")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the page")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=SETTINGS, help="settings to make")
    parser.add_argument("--finished", action="store_true", help="make nothing: leave out what is not there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    make = () if options.finished else options.only or tuple(SETTINGS)
    with tempfile.TemporaryDirectory(prefix="quantization_") as temporary:
        root = options.root or unpack(Path(temporary) / "wells")
        write(options, root.resolve(), make)


def write(options: argparse.Namespace, root: Path, make: Sequence[str]) -> None:
    """Make what is missing and write the page and its figures."""
    tables, curves = {}, {}
    sources = [s for s in (student(0, options, root), published(options, root)) if s.path.is_file()]
    if not sources:
        raise SystemExit(f"{options.models} holds no student_cylinder_0: run `benchmarks.quality` first")
    for source in sources:
        tables[source.name] = collect(source, TABLE, make)
    for source in sources:
        # The curves are of the first model; of the others there is, beside the tables, what fine-tuning does to int4.
        more = CURVE if source is sources[0] else (SETTINGS["gptq_4"],)
        curves[source.name] = tables[source.name] | collect(source, more, make)
    pairs = [duel(seed, options, root, make) for seed in range(SEEDS)]
    figures = options.output / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    methods = {name: by_method(results) for name, results in curves.items()}
    draw_curve({LABELS[name]: found for name, found in methods.items() if found}, figures / "curve.png")
    layers = {name: tables[sources[0].name][name] for name in LAYERS_OF if tables[sources[0].name][name]}
    if layers:
        draw_layers(layers, figures / "layers.png")
    rows = {s.name: rows_table(s.path.stat().st_size, tables[s.name]) for s in sources}
    blocks = {
        "header": header(sources, sources[0].split()),
        "targets": targets_table({LABELS[name]: results for name, results in tables.items()}),
        "student": rows.get(STUDENT, NOTHING),
        "published": rows.get(PUBLISHED, NOTHING),
        "curve": "\n\n".join(f"### {LABELS[name]}\n\n{curve_table(found)}" for name, found in methods.items()),
        "million": million_table([pair for pair in pairs if pair is not None]),
    }
    page = options.output / "README.md"
    page.write_text(fill(page.read_text(encoding="utf-8"), blocks, page.name), encoding="utf-8")
    progress(f"wrote {page}")


if __name__ == "__main__":
    main()
