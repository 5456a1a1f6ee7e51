"""Measures how fast engines predict, as ratios to the course's computation and to torch in bf16. Writes README.md.

    python -m benchmarks.engines                                          # about 10 minutes on 2 cores
    python -m benchmarks.engines --pair NAME F.safetensors F.onnx --root DIR   # also whether masks agree, on real wells
    python -m benchmarks.engines --quick --output x.md                    # all of the code in a minute; numbers mean nothing

Speed is measured on an untrained student, since it does not depend on the weights.
"""

import argparse
import os
import time
from pathlib import Path

from benchmarks.common.page import Sample, header, in_rounds, progress, ratio, table, verdict
from benchmarks.common.process import Worker
from benchmarks.engines import agreement as engines_agreement
from benchmarks.engines.measure import BF16, CASES, COURSE, HOW, ORT_INT8, engines, keys

PAGE = Path(__file__).resolve().with_name("README.md")
TARGET = 12.0
FLAGS = ("avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")

Found = dict[tuple[str, str], Sample]
"""Seconds by engine and case."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=PAGE)
    parser.add_argument("--pair", nargs=3, action="append", default=[], metavar=("NAME", "MODEL", "INT8"))
    parser.add_argument("--root", type=Path, help="CorroSeg's folder, for --pair")
    parser.add_argument("--num-folds", type=int, default=4)
    parser.add_argument("--fold", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="tiny sizes and one round; needs --output")
    given = parser.parse_args()
    if given.quick and given.output.resolve() == PAGE:
        parser.error("--quick needs --output: its numbers must not reach the page")
    if given.pair and not given.root:
        parser.error("--pair needs --root: the wells to compare on")
    start = time.monotonic()
    rounds, rows, batch = (1, 200, 4) if given.quick else (5, 20_000, 256)
    runs = {threads: measure(threads, rounds, rows, batch) for threads in sorted({1, len(os.sched_getaffinity(0))})}
    found = {
        name: engines_agreement.measure(Path(model), Path(integers), given.root, given.num_folds, given.fold)
        for name, model, integers in given.pair
    }
    lines = [*introduction(given.quick, (time.monotonic() - start) / 60), *targets(runs)]
    for threads, times in runs.items():
        lines += section(threads, times, rows, batch)
    lines += engines_agreement.section(found) if found else []
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text("\n".join([*lines, *NOT_MEASURED]), encoding="utf-8")
    progress(f"wrote {given.output}")


def measure(threads: int, rounds: int, rows: int, batch: int) -> Found:
    """All engines and cases in turn within each round, in one process of `threads` threads."""
    with Worker("benchmarks.engines.measure", threads=threads, rows=rows, batch=batch) as worker:
        asked = {key: (lambda name=name: worker(name)) for key, name in keys().items()}
        return in_rounds(asked, at_least=rounds, at_most=rounds, seconds=0, say=f"engines, threads {threads}")


def introduction(quick: bool, minutes: float) -> list[str]:
    warning = ["**A trial with tiny sizes: none of its numbers mean anything.**", ""] if quick else []
    packages = ["torch", "onnx", "onnxruntime", "numpy", *(["openvino"] if len(engines()) == len(HOW) else [])]
    return [
        "# Engines",
        "",
        *warning,
        *header(packages),
        f"- The processor has {', '.join(f for f in FLAGS if f in _flags()) or 'none of ' + ', '.join(FLAGS)}; it lacks "
        f"{', '.join(f for f in FLAGS if f not in _flags()) or 'nothing of that'}.",
        "- Times and ratios: median (lowest-highest, rounds). All engines take turns within each round, in one process;",
        "  ratios are taken round by round.",
        f"- Whole run: {minutes:.1f} min.",
        "",
    ]


def _flags() -> set[str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((set(line.split(":")[1].split()) for line in lines if line.startswith("flags")), set())


def targets(runs: dict[int, Found]) -> list[str]:
    rows = []
    for threads, times in runs.items():
        for case in CASES[1:]:
            gain = ratio(times[COURSE, case], times[ORT_INT8, case])
            what = f"{ORT_INT8}, {case}, threads {threads}: times the course's"
            rows.append([what, gain.text("times"), f"at least {TARGET:g}", verdict(TARGET, gain.median)])
    return ["## Targets", "", *table(["what", "measured", "wanted", "target"], rows), ""]


def section(threads: int, times: Found, rows: int, batch: int) -> list[str]:
    lines = [f"## Threads {threads}", ""]
    units = {
        CASES[0]: ("ms for one window of 36 x 36", lambda s: Sample(tuple(1e3 * v for v in s.values)), "ms"),
        CASES[1]: (f"windows/s, {batch} at once", lambda s: Sample(tuple(batch / v for v in s.values)), "windows/s"),
        CASES[2]: (f"rows/s, {rows:,} x 36", lambda s: Sample(tuple(rows / v for v in s.values)), "rows/s"),
    }
    for case, (title, convert, unit) in units.items():
        cells = [
            [
                name, HOW[name], convert(times[name, case]).text(unit),
                ratio(times[COURSE, case], times[name, case]).text("times"),
                ratio(times[BF16, case], times[name, case]).text("times"),
            ]
            for name in engines()
        ]  # fmt: skip
        columns = ["engine", "computes", title, "as fast as the course's", f"as fast as {BF16}"]
        lines += [f"### {case.capitalize()}", "", *table(columns, cells), ""]
    return lines


NOT_MEASURED = [
    "## Not measured",
    "",
    "- `torch.compile`: benchmarks/speed has it, and it is no faster than eager bf16 there.",
    "- OpenVINO on a file that NNCF quantized: benchmarks/engines_nncf. The int8 file here is laid out for ONNX Runtime.",
    "- Processors with AMX, on which bf16 is several times as fast as here, and ones without VNNI.",
    "",
]


if __name__ == "__main__":
    main()
