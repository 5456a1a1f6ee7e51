"""Measures how fast sets of images are read, and what their files cost. Writes README.md.

    python -m benchmarks.images                      # about 10 minutes on 2 cores
    python -m benchmarks.images --quick --output x.md       # all of the code in a minute; numbers mean nothing

Every input pipeline is measured against a plain PyTorch loader of the same files in the same rounds: a Dataset that opens one
picture with Pillow, resizes it, makes it a float tensor and normalises it, and a DataLoader with the same worker processes.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader

from benchmarks.common.page import Sample, digits, header, in_rounds, progress, ratio, table, timed, verdict
from benchmarks.common.runs import ROOT
from benchmarks.images.plain import PlainPictures
from benchmarks.images.runs import RUNS
from wellseg import build, config
from wellseg.cli.session import session
from wellseg.data.io import rle
from wellseg.data.module import SegmentationDataModule
from wellseg.data.normalize import Normalize
from wellseg.training.assembly import assemble
from wellseg.types import Batch

PAGE = Path(__file__).resolve().with_name("README.md")
CODEC_TARGET = 500.0
MASKS = 64
STEP_IMAGES = 2
SUBMISSIONS = (10, 100, 1000)


@dataclass(frozen=True)
class Case:
    """An experiment, the size of its published images, how many are made, and how many make a batch."""

    experiment: str
    size: tuple[int, int]
    images: int
    batch: int


CASES = (
    Case("airbus_1", (768, 768), 256, 16),
    Case("stanford", (1080, 1080), 96, 16),
    Case("carvana", (1280, 1918), 96, 4),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.images", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=PAGE)
    parser.add_argument("--quick", action="store_true", help="small images and one round; needs --output")
    given = parser.parse_args()
    if given.quick and given.output.resolve() == PAGE:
        parser.error("--quick needs --output: its numbers must not reach the page")
    torch.set_num_threads(1)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        reading = [line for case in CASES for line in pipeline(case, folder / case.experiment, quick=given.quick)]
        codec = run_lengths(1 if given.quick else 9)
        files = submissions(folder, (3, 6) if given.quick else SUBMISSIONS)
    lines = [
        "# Sets of images\n",
        *header(("torch", "numpy", "pillow")),
        f"- Whole run: {(time.monotonic() - begun) / 60:.1f} min.",
        "- Medians (lowest-highest, rounds) of what takes turns within each round; ratios are taken round by round. One thread\n"
        "  in the training process; worker processes come on top. The pictures are those of the fake sets, made by code, in the\n"
        "  published formats and sizes.\n",
        *scores(),
        "## Reading\n",
        "Images per second from files to normalised float batches, labels included. *Share of a step*: time that reading takes\n"
        "beside one training step of the experiment's network at full width on this CPU, in fp32, both in the same process:\n"
        "what it would cost at most, since workers read while the network trains. The plain loader checks nothing: here a\n"
        "file is walked through before it is decoded, so that a damaged one is named, and labels become class indices.\n",
        *table(("set", "workers", "wellseg", "plain loader", "times the plain one", "share of a step"), reading),
        "\n## Run lengths\n",
        "Masks of 768 x 768 with 0 to 15 ships per second and core.\n",
        *table(("what", "masks/s", "wanted", "target"), codec),
        "\n## Submissions\n",
        "Masks of 1280 x 1918 written to a checked `.csv.gz`, in a process of its own each: the most memory that it held.\n",
        *table(("images", "seconds", "images/s", "peak memory, MB"), files),
    ]
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    progress(f"wrote {given.output}")


def scores() -> list[str]:
    """The table of what `make sets` left, where it did."""
    rows = []
    for experiment, run in RUNS.items():
        file = ROOT / "outputs" / "sets" / experiment / "scores.json"
        if not file.is_file():
            continue
        found = json.loads(file.read_text(encoding="utf-8"))
        names = ("f1_macro",) if "f1_macro" in found["this network"] else ("dice_pooled", "dice_per_image")
        for score in names:
            values = [f"{of[score]:.3f}" for of in found.values()]
            rows.append((f"`{experiment}`", score, *values, f"`{' '.join(run.overrides)}`"))
    if not rows:
        return []
    return [
        "## Scores on the fake sets\n",
        "Test part, one seed, from `make sets`: networks that two cores train in minutes, on sets that are made by code.\n"
        "They show that an experiment learns, not how good it is on the published set, which was never read here. *One class\n"
        "everywhere* is the best of all classes, score by score; *colour alone* is logistic regression on a pixel's channels.\n"
        "`carvana` answers for the middle of the pictures, and the two beside it are scored there as well.\n",
        *table(("experiment", "score", "this network", "one class everywhere", "colour alone", "made small by"), rows),
        "",
    ]


def pipeline(case: Case, root: Path, *, quick: bool) -> Iterator[tuple[str, ...]]:
    """A row of the table of reading for each number of workers."""
    size = (96, 128) if quick else case.size
    images = 48 if quick else case.images
    overrides = [
        f"experiment={case.experiment}", "data.fake=true", f"data.root={root}", f"data.fake_images={images}",
        f"data.fake_size=[{size[0]},{size[1]}]", f"batch_size={case.batch}", "augment=none", "logger=none",
    ]  # fmt: skip
    cfg = config.load("train", overrides, with_hydra=True)
    choices = dict(cfg.hydra.runtime.choices)
    step = None if quick else training_step(cfg, root, choices)
    for workers in (0, 1, 2):
        data = build.part(cfg, "data", choices, num_workers=workers)
        data.setup()
        store = data.store("train")
        plain = PlainPictures(store, data.normalization)
        ours, theirs = (
            (lambda d=data: drain(ours_of(d))),
            (lambda p=plain, w=workers: drain(plain_of(p, case.batch, w))),
        )
        found = in_rounds(
            {"ours": timed(ours), "plain": timed(theirs)},
            at_least=1 if quick else 5, at_most=1 if quick else 5, seconds=0, say=f"{case.experiment}, {workers} workers",
        )  # fmt: skip
        number = len(store)
        rates = {name: Sample(tuple(number / s for s in sample.values)) for name, sample in found.items()}
        share = "-"
        if step is not None and workers == 0:
            seconds = found["ours"].median / number
            share = f"{100 * seconds / (seconds + step.median):.1f} %"
        yield (
            f"{case.experiment}, {size[0]} x {size[1]} -> {cfg.data.resize[0]} x {cfg.data.resize[1]}",
            str(workers),
            rates["ours"].text("images/s"),
            rates["plain"].text("images/s"),
            ratio(rates["ours"], rates["plain"]).text("times"),
            share,
        )


def ours_of(data: SegmentationDataModule) -> Iterator[torch.Tensor]:
    """Normalised batches, as the task makes them."""
    normalize = Normalize(data.normalization)
    for batch in data.loader("train", training=True):
        yield normalize(batch.image, batch.valid)


def plain_of(pictures: PlainPictures, batch: int, workers: int) -> Iterator[torch.Tensor]:
    for image, _ in DataLoader(pictures, batch_size=batch, shuffle=True, num_workers=workers):
        yield image


def drain(batches: Iterator[torch.Tensor]) -> None:
    for batch in batches:
        assert batch.dtype == torch.float32


def training_step(cfg: DictConfig, root: Path, choices: dict[str, str]) -> Sample:
    """Seconds of forward, backward and optimizer step for one image, in a batch of STEP_IMAGES that is there already."""
    with session(seed=cfg.seed):
        parts = assemble(cfg, root.parent / "run", choices)
    task = parts.task.train()
    batch = next(iter(parts.datamodule.loader("train", training=True)))
    batch = Batch(*(column[:STEP_IMAGES] for column in batch))
    optimizer = build.part(cfg, "optimizer", choices)(task.network.parameters())

    def step() -> None:
        optimizer.zero_grad()
        task.objective(task, batch)["loss"].backward()
        optimizer.step()

    step()
    found = in_rounds({"step": timed(step)}, at_least=2, at_most=2, seconds=0, say="training step")["step"]
    return Sample(tuple(seconds / STEP_IMAGES for seconds in found.values))


def run_lengths(rounds: int) -> list[tuple[str, ...]]:
    """Rows of the table of run lengths; in processor time, which other work on the machine does not count in."""
    rng = np.random.default_rng(0)
    masks = [ships(rng) for _ in range(MASKS)]
    texts = [rle.encode(mask) for mask in masks]

    def spent(function: Callable, items: list) -> Callable[[], float]:
        def measure() -> float:
            start = time.process_time()
            for item in items:
                function(item)
            return len(items) / (time.process_time() - start)

        return measure

    found = in_rounds(
        {"encode": spent(rle.encode, masks), "decode": spent(lambda t: rle.decode(t, (768, 768)), texts)},
        at_least=rounds, at_most=rounds, seconds=0, say="run lengths",
    )  # fmt: skip
    return [
        (name, sample.text("masks/s"), f"above {CODEC_TARGET:.0f}", verdict(-sample.median, -CODEC_TARGET))
        for name, sample in found.items()
    ]


def ships(rng: np.random.Generator) -> np.ndarray:
    """(768, 768) uint8 with 0 to 15 turned boxes."""
    mask = np.zeros((768, 768), np.uint8)
    row, column = np.mgrid[:768, :768].astype(np.float32)
    for _ in range(rng.integers(0, 16)):
        y, x = rng.uniform(0, 768, 2)
        angle, length, width = rng.uniform(0, np.pi), rng.uniform(10, 100), rng.uniform(4, 20)
        along = (row - y) * np.sin(angle) + (column - x) * np.cos(angle)
        across = (row - y) * np.cos(angle) - (column - x) * np.sin(angle)
        mask[(abs(along) < length / 2) & (abs(across) < width / 2)] = 1
    return mask


_WRITE = """
import sys, time
import numpy as np
from wellseg.inference.submission import formats
number, path = int(sys.argv[1]), sys.argv[2]
row, column = np.mgrid[:1280, :1918]
def masks():
    for i in range(number):
        y, x = 500 + 37 * i % 300, 900 + 53 * i % 400
        yield f"{i:05d}.jpg", (((row - y) / 300) ** 2 + ((column - x) / 500) ** 2 < 1 + 0.1 * np.sin(row / 9)).astype(np.uint8)
settings = {"format": "rle_image", "columns": ["img", "rle_mask"], "order": "row"}
start = time.perf_counter()
formats.write(path, masks(), settings, {f"{i:05d}.jpg": (1280, 1918) for i in range(number)})
seconds = time.perf_counter() - start
highest = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(seconds, int(highest.split()[1]) / 1000)
"""


def submissions(folder: Path, numbers: tuple[int, ...]) -> list[tuple[str, ...]]:
    rows = []
    for number in numbers:
        progress(f"a submission of {number:,} images")
        place = folder / "submission.csv.gz"
        out = subprocess.run(
            [sys.executable, "-c", _WRITE, str(number), str(place)], capture_output=True, text=True, check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        seconds, megabytes = map(float, out.stdout.split())
        rows.append((f"{number:,}", digits(seconds), digits(number / seconds), f"{megabytes:.0f}"))
        place.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    return rows


if __name__ == "__main__":
    main()
