"""Measures how well a classifier discriminates synthetic wells from real ones. Writes README.md and a figure.

    python -m benchmarks.realism                                  # all levels, page and figure (needs scikit-learn)
    python -m benchmarks.realism --levels hard --splits 3 --dry   # print only: the loop for work on the generator

Real wells are read from --data (a folder of {train,test}_well_{i}.npz: `values` int16 (N, 36, 36) in 1e-4, -32767
and -32768 no data; `silver` packed label bits). Windows are 36 x 36 without missing data. Each split trains on some
wells of both kinds and tests on the others, so neither a real nor a synthetic well is on both sides; the views of one
72-column well stay together, and the largest wells count no more than the others. Deterministic for one --seed.
"""

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import sklearn
import torch

from benchmarks.common.page import cpu
from benchmarks.common.runs import SHARED
from benchmarks.realism.classifiers import FAKE_PER_WELL, PER_WELL, Outcome, run_split
from benchmarks.realism.statistics import draw_figure, statistics_table
from benchmarks.realism.windows import make_synthetic, read_real
from wellseg.data.datasets.synthetic.module import LEVELS

HERE = Path(__file__).resolve().parent


# --- the page ---------------------------------------------------------------------------------------------------------


def summary(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def page(
    outcomes: dict[str, list[Outcome]], table: list[str], num_real: int, args: argparse.Namespace, seconds: float
) -> str:
    """The Markdown page of benchmarks/realism."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}, "
    hardest = outcomes.get("hard") or list(outcomes.values())[-1]
    gains = {key: np.mean([o.gains[key] for o in hardest]) for key in hardest[0].gains}
    told = sorted(gains, key=gains.get, reverse=True)[:8]
    wells: dict[str, list[float]] = {}
    for outcome in hardest:
        for name, auc in outcome.per_well.items():
            wells.setdefault(name, []).append(auc)
    lines = [
        "# Realism of the synthetic wells",
        "",
        "Can a classifier that has seen some real and some synthetic wells tell windows of *other* wells apart? AUC 0.5: no;",
        "1: always. Real wells: CorroSeg (SLB, ENS challenge data 144); their labels are silver, and no data of theirs is here.",
        "",
        f"- Hardware: {cpu()}, 1 thread. Versions: {versions}scikit-learn {sklearn.__version__}.",
        f"- Command: `python -m benchmarks.realism --splits {args.splits} --seed {args.seed}`; {seconds / 60:.0f} min in all.",
        f"- n: {num_real} real wells and {args.wells} synthetic ones of {args.rows} rows (every second with 72 columns,",
        f"  seen as two views); {args.splits} random splits by well, two thirds to train; per split at most",
        f"  {PER_WELL} windows 36 x 36 of a real well and {FAKE_PER_WELL} of a synthetic one, none with missing data or",
        "  repeated rows.",
        "- Classifiers: a CNN (4 convolutions, about 25 k parameters, random roll and flips) on pixels; gradient-boosted trees",
        "  on 32 summary statistics of a window. Mean over splits (lowest-highest).",
        "",
        "| level | CNN, unseen wells | CNN, its training windows | trees, unseen wells |",
        "|---|---|---|---|",
    ]
    for level, runs in outcomes.items():
        columns = [summary([getattr(o, key) for o in runs]) for key in ("cnn", "cnn_seen", "trees")]
        lines.append(f"| {level} | " + " | ".join(columns) + " |")
    lines += [
        "",
        "![Real and synthetic sections](figures/sections.png)",
        "",
        "300 rows each, grey from -0.06 to 0.06, labels in red. Left: sections of CorroSeg wells (SLB, ENS challenge data 144)",
        "with silver labels; then the levels with their exact labels.",
        "",
        "## What gives hard away",
        "",
        "AUC of the CNN for one real well against all synthetic test wells, mean over the splits that tested it:",
        ", ".join(f"{name} {np.mean(v):.2f}" for name, v in sorted(wells.items(), key=lambda i: -np.mean(i[1]))) + ".",
        "",
        "Loss of the trees' AUC when one statistic is shuffled: "
        + ", ".join(f"{k} {gains[k]:.3f}" for k in told)
        + ".",
        "",
        "## Statistics, real against synthetic",
        "",
        "Median over views [10th, 90th percentile]. Real labels are silver.",
        "",
        *table,
        "",
        "## What this does not show",
        "",
        "- An unseen-well AUC near 0.5 or below (single wells go there) also means that a classifier learnt its few training",
        "  wells by heart rather than what is synthetic: read the highest split, not the mean, as the distance that is left.",
        "- The generator's ranges were set by looking at these same wells, so the AUC is one of development, not of a",
        "  blind test; with more real wells to learn from, a classifier would do better (see its training windows).",
        "- A larger network, larger windows, whole joints and missing data were not tried.",
        "- Whether a model trained on these wells works on real ones is another question, measured on its own page.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.realism", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "corroseg")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--levels", nargs="*", choices=list(LEVELS), default=list(LEVELS)[::-1])
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--wells", type=int, default=42, help="synthetic wells per level")
    parser.add_argument("--rows", type=int, default=3000, help="rows of each")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print the AUCs and write nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    started = time.time()
    real = read_real(args.data)
    sets = {"real": real}
    outcomes: dict[str, list[Outcome]] = {}
    for level in args.levels:
        sets[level] = make_synthetic(level, args.wells, args.rows, args.seed)
        outcomes[level] = []
        for split in range(args.splits):
            outcome = run_split(real, sets[level], args.seed, split, args.epochs)
            outcomes[level].append(outcome)
            scores = f"CNN {outcome.cnn:.3f} (seen {outcome.cnn_seen:.3f}), trees {outcome.trees:.3f}"
            print(f"{level} split {split}: {scores}", flush=True)
    if args.dry:
        return
    draw_figure(sets, args.out / "figures" / "realism_sections.png", args.seed)
    text = page(outcomes, statistics_table(sets), len({view.group for view in real}), args, time.time() - started)
    (args.out / "README.md").write_text(text, encoding="utf-8")
    print(f"written: {args.out / 'README.md'}")


if __name__ == "__main__":
    main()
