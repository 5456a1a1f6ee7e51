"""Measures start-up, reading labels, `check` and the input pipeline. Writes README.md.

    python -m benchmarks.startup                  # 3 to 5 minutes on 2 cores
    python -m benchmarks.startup --output x.md    # another page

Everything is made by code in a temporary folder of about 110 MB: a set of the challenge's size and layout.
"""

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.common.page import Sample, digits, header, in_rounds, progress, ratio, table, verdict
from benchmarks.common.pipeline import (
    BATCH,
    WINDOW,
    Share,
    against_per_sample,
    pipeline_shares,
    share_rows,
    share_target,
)
from wellseg.data.datasets.corroseg.files import write_corroseg
from wellseg.data.datasets.synthetic.module import generate_well, well_generator
from wellseg.data.wells.well import Well

PAGE = Path(__file__).resolve().with_name("README.md")
TRAIN = (166, 616, 1774, 59, 98, 964, 1654, 78, 166, 80, 1512, 44, 1905, 355, 203)
TEST = (25, 31, 461, 56, 1965)
"""Patches of the challenge's wells 1, 2, ...; 9,674 and 2,538 in all."""
PAIRED = (1, 2, 5, 6, 7, 8, 9, 10)
"""Training wells whose patches are the even and odd columns of 72."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=PAGE)
    output = parser.parse_args().output
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wellseg_bench_") as folder:
        targets, notes = commands(Path(folder))
    shares = pipeline_shares()
    baseline = against_per_sample()
    minutes = (time.monotonic() - start) / 60
    targets.append(share_target(shares))
    write(output, targets, notes, shares, baseline, minutes)
    progress(f"wrote {output}")


# --- commands ---------------------------------------------------------------------------------------------------------


def commands(folder: Path) -> tuple[list[list[str]], list[str]]:
    """Rows of the table of targets, and what there is to say about them."""
    python = [sys.executable, "-c"]
    helped = in_rounds(
        {
            "help": lambda: run([sys.executable, "-m", "wellseg.train", "--help"], folder)[0],
            "bare": lambda: run([*python, "pass"], folder)[0],
            "torch": lambda: run([*python, "import torch"], folder)[0],
        },
        at_least=5, at_most=15, seconds=25, say="--help",
    )  # fmt: skip
    progress("writing a set of the challenge's size")
    root = folder / "set"
    write_full_set(root)
    csv = root / "y_train.csv"
    peaks: list[float] = []
    labels = in_rounds(
        {
            "wellseg": lambda: inside(READ_LABELS.format(path=str(csv)), folder, peaks),
            "loadtxt": lambda: inside(LOADTXT.format(path=str(csv)), folder, []),
        },
        at_least=3, at_most=5, seconds=45, say="labels CSV",
    )  # fmt: skip
    check_peaks: list[float] = []
    check_cpu: list[float] = []
    printed: list[str] = []

    def check() -> float:
        before = cpu_of_children()
        seconds, out = run([sys.executable, "-m", "wellseg.check", "data=corroseg", f"data.root={root}"], folder)
        check_cpu.append(cpu_of_children() - before)
        printed.append(out.strip().splitlines()[-1])
        return seconds

    checked = in_rounds(
        {"command": check, "inside": lambda: inside(CHECK.format(path=str(root)), folder, check_peaks)},
        at_least=3, at_most=5, seconds=60, say="check",
    )  # fmt: skip
    rows = [
        target("`python -m wellseg.train --help`", helped["help"], "s", 1.0),
        target("labels CSV of 9,674 x 1,296, time in the process", labels["wellseg"], "s", 5.0),
        target("labels CSV, peak memory of the process (with torch imported)", Sample(tuple(peaks)), "MB", 500.0),
        target("`python -m wellseg.check data=corroseg`, 9,674 + 2,538 patches", checked["command"], "s", 10.0),
    ]
    notes = [
        f"- `--help`: bare Python takes {helped['bare'].text('s')}, `import torch` alone {helped['torch'].text('s')}; "
        f"the help is {ratio(helped['help'], helped['torch']).text('of the latter')}.",
        f"- Labels CSV ({csv_megabytes(csv)} MB): `numpy.loadtxt` of the same cells as uint8, without names or checks, "
        f"takes {labels['loadtxt'].text('s')}; it is {ratio(labels['loadtxt'], labels['wellseg']).text('times ours')}.",
        f"- `check` in the process, without start-up: {checked['inside'].text('s')}, "
        f"{ratio(checked['inside'], checked['command']).text('% of the command', 100)}; the rest starts Python, torch, "
        f"Lightning and Hydra. CPU time of the command: {Sample(tuple(check_cpu)).text('s')}; what it took beyond that "
        f"it waited for a core or the disk. Peak memory {Sample(tuple(check_peaks)).text('MB')}. It ends with: {printed[-1]}.",
        "- The files had just been written and lay in the system's cache.",
    ]
    return rows, notes


PEAK = "; print(seconds, re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
TIMING = "import re, time; start = time.perf_counter(); {work}; seconds = time.perf_counter() - start" + PEAK
READ_LABELS = (
    "from wellseg.data.io.label_table import read_labels; "
    + TIMING.format(work="table, problems = read_labels({path!r})")
    + "; assert table.values.shape == (9674, 1296) and not problems, problems"
)
LOADTXT = "import numpy as np; " + TIMING.format(
    work="np.loadtxt({path!r}, np.uint8, delimiter=',', skiprows=1, usecols=range(1, 1297))"
)
CHECK = (
    "from wellseg.data.datasets.corroseg.module import CorroSegDataModule as Data; "
    + TIMING.format(work="problems = Data(root={path!r}).check()")
    + "; assert not [p for p in problems if p.severity == 'error'], problems"
)


def run(arguments: list[str], folder: Path) -> tuple[float, str]:
    """Wall seconds and standard output of a command that must succeed, started in `folder`."""
    start = time.perf_counter()
    out = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if out.returncode:
        sys.exit(f"{' '.join(arguments)} ended with {out.returncode}:\n{out.stdout}{out.stderr}")
    return seconds, out.stdout


def cpu_of_children() -> float:
    """Seconds of processor time that all finished children have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def inside(code: str, folder: Path, peaks: list[float]) -> float:
    """Seconds that `code` measured in a new process; its peak resident memory in MB is added to `peaks`.

    The process reads its own high-water mark: the one that the system reports to its parent starts at the parent's.
    """
    seconds, kib = run([sys.executable, "-c", code], folder)[1].split()
    peaks.append(int(kib) * 1024 / 1e6)
    return float(seconds)


def target(what: str, sample: Sample, unit: str, limit: float) -> list[str]:
    return [what, sample.text(unit), f"{digits(limit)} {unit}", verdict(sample.median, limit)]


def csv_megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.0f}"


def write_full_set(root: Path) -> None:
    """Synthetic wells of level hard in the challenge's layout, with its numbers of patches and its paired wells."""

    def well(number: int, patches: int, name: str) -> Well:
        paired = name.startswith("well") and number in PAIRED
        return generate_well(
            well_generator(0, number + (0 if name.startswith("well") else 100)), level="hard",
            num_rows=WINDOW * patches // (2 if paired else 1), num_columns=72 if paired else 36, name=name,
        )  # fmt: skip

    train = [well(i, n, f"well_{i}") for i, n in enumerate(TRAIN, 1)]
    test = [replace(well(i, n, f"test_well_{i}"), target=None) for i, n in enumerate(TEST, 1)]
    write_corroseg(root, train, test)


# --- page -------------------------------------------------------------------------------------------------------------


def write(
    path: Path, targets: list[list[str]], notes: list[str], shares: list[Share], baseline: list[list[str]],
    minutes: float,
) -> None:  # fmt: skip
    crowded = [
        "Not judged: a step took longer on two threads than on one: other work on the machine, by the load above.",
        "",
    ]
    lines = [
        "# What start-up and the input pipeline cost",
        "",
        *header(["torch", "pytorch-lightning", "numpy"]),
        "- n and spread: median (lowest-highest, n rounds). What is compared is measured in turn within each round, and a",
        f"  ratio is taken round by round. Whole run: {minutes:.1f} min.",
        "- Data: synthetic wells of level hard, seeds 0 and 1, in the challenge's layout and size; no real wells.",
        "",
        "## Targets",
        "",
        *table(["what", "measured", "at most", "target"], targets),
        "",
        *notes,
        "",
        "## Input pipeline",
        "",
        f"Gathering and augmenting one batch of {BATCH} windows {WINDOW} x {WINDOW} through `WindowLoader` (mean of 8 in",
        "a row), as a share of a training step of `experiment=exp2001` on such a batch (normalise, forward, loss,",
        "backward, Adam).",
        "",
        *table(["threads", "padding", "augment", "one batch", "one step", "share", "at most 5 %"], share_rows(shares)),
        "",
        *(crowded if any(s.crowded for s in shares) else []),
        "Against a plain `Dataset` that cuts, rolls and flips one window at a time in numpy, with a `DataLoader` (batch",
        f"{BATCH}, 1 torch thread). Both ways roll and flip alike; time per batch over a pass without its first batch.",
        "",
        *table(["augment", "its workers", "WindowLoader", "per sample", "ratio"], baseline),
        "",
        "With workers, the per-sample way uses further cores, which training would want on a machine with two.",
        "",
        "## Not measured",
        "",
        "- GPUs: there the windows lie on the device and the step is much shorter.",
        "- Files that are not in the system's cache, network file systems, `data.storage=disk`.",
        "- `augment=strong` done per sample in numpy; its shear, rescale and blur have no such baseline here.",
        "- Logging, validation and checkpoints, which come on top of a step in a run.",
        "",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(re.sub(r"\n{3,}", "\n\n", "\n".join(lines)), encoding="utf-8")


if __name__ == "__main__":
    main()
