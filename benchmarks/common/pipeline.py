"""Measures the input pipeline against a training step and against a plain per-sample pipeline."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.common.page import Sample, in_rounds, ratio, timed, verdict
from wellseg import build, config
from wellseg.data.datasets.synthetic.module import generate_well, well_generator
from wellseg.data.loader import WindowLoader
from wellseg.data.normalize import fit_normalization
from wellseg.data.sampler import WindowSampler
from wellseg.data.wells.well import Well
from wellseg.data.wells.windows import WindowStore
from wellseg.training.objectives import Supervised
from wellseg.training.task import SegmentationTask
from wellseg.types import Batch

BATCH, WINDOW = 128, 36
AUGMENTS = ("none", "roll_flip", "strong")
PADDINGS = ("turns", "cylinder")
PIPELINE_LIMIT = 0.05


def make_wells(count: int = 8, rows: int = WINDOW * 640) -> list[Well]:
    return [
        generate_well(well_generator(1, i), level="hard", num_rows=rows, name=f"synthetic_{i}") for i in range(count)
    ]


def endless(loader: WindowLoader) -> Iterator[Batch]:
    while True:
        yield from loader
        loader.sampler.set_epoch(loader.sampler.epoch + 1)


def make_loader(store: WindowStore, augment: str, scale: float) -> WindowLoader:
    cfg = config.load("train", [f"augment={augment}"])
    sampler = WindowSampler(store.group_of, BATCH, seed=0, shuffle=True)
    made = build.part(cfg, "augment", {"augment": augment})
    return WindowLoader(store, sampler, device=torch.device("cpu"), augment=made, scale=scale)


def make_step(padding: str, wells: list[Well], batch: Batch) -> Callable[[], None]:
    """One training step of the student on a batch that is there already: normalise, forward, loss, backward, Adam."""
    choices = {"experiment": "exp2001"}
    cfg = config.load("train", ["experiment=exp2001", f"model.padding={padding}"])
    network = build.part(cfg, "model", choices)
    task = SegmentationTask(
        network, Supervised(build.part(cfg, "loss", choices)), None, build.part(cfg, "metrics", choices),
        normalization=fit_normalization([w.values for w in wells], cfg.data.normalize, cfg.data.clip),
    )  # fmt: skip
    optimizer = build.part(cfg, "optimizer", choices)(network.parameters())

    def step() -> None:
        loss = task.objective(task, batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


@dataclass(frozen=True)
class Share:
    """Time of a batch of `augment` beside that of a step with `padding`, on a number of threads."""

    threads: int
    padding: str
    augment: str
    batch: Sample
    step: Sample
    crowded: bool

    @property
    def share(self) -> Sample:
        return ratio(self.batch, self.step)

    @property
    def verdict(self) -> str:
        return "not judged" if self.crowded else verdict(self.share.median, PIPELINE_LIMIT)


def pipeline_shares() -> list[Share]:
    """All combinations. Those of two threads are `crowded` where a step took longer on two threads than on one.

    Threads that wait for one another while other processes hold the cores multiply every small operation's time.
    """
    wells = make_wells()
    store = WindowStore(wells, range(len(wells)), WINDOW, WINDOW)
    scale = fit_normalization([w.values for w in wells], "robust", 16.0).scale
    streams = {augment: endless(make_loader(store, augment, scale)) for augment in AUGMENTS}
    alone: dict[str, float] = {}
    shares = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for padding in PADDINGS:
            step = make_step(padding, wells, next(streams["none"]))
            step()  # the first one allocates
            measure = {"step": timed(step)}
            measure |= {augment: mean_of_batches(stream) for augment, stream in streams.items()}
            what = f"pipeline, padding={padding}, threads {threads}"
            found = in_rounds(measure, at_least=3, at_most=9, seconds=20, say=what)
            crowded = found["step"].median > alone.setdefault(padding, found["step"].median)
            shares += [Share(threads, padding, a, found[a], found["step"], crowded) for a in AUGMENTS]
    return shares


def share_target(shares: list[Share]) -> list[str]:
    """Row of the table of targets: the worst of those that are judged."""
    worst = max((s for s in shares if not s.crowded), key=lambda s: s.share.median)
    what = f"augment={worst.augment}, padding={worst.padding}, threads {worst.threads}"
    return [f"input pipeline, share of a step, worst case ({what})", worst.share.text("%", 100), "5 %", worst.verdict]


def share_rows(shares: list[Share]) -> list[list[str]]:
    return [
        [
            f"{s.threads}", s.padding, s.augment, s.batch.text("ms", 1e3), s.step.text("ms", 1e3),
            s.share.text("%", 100), s.verdict,
        ]
        for s in shares
    ]  # fmt: skip


def mean_of_batches(stream: Iterator[Batch], count: int = 8) -> Callable[[], float]:
    """Seconds per batch, over `count` of them."""

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(count):
            next(stream)
        return (time.perf_counter() - start) / count

    return measure


class PerSample(Dataset):
    """The baseline: one window at a time, cut, rolled and flipped in numpy, then collated by the DataLoader."""

    def __init__(self, wells: list[Well], augment: bool) -> None:
        self._wells, self._augment = wells, augment
        self._windows = [(i, row) for i, w in enumerate(wells) for row in range(0, w.num_rows, WINDOW)]
        self._rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, number: int) -> tuple:
        i, row = self._windows[number]
        well, rows = self._wells[i], slice(row, row + WINDOW)
        valid, target = well.valid[rows], well.target[rows]
        image = np.where(valid, well.values[rows], np.float32(0))
        if self._augment:
            roll = int(self._rng.integers(image.shape[1]))
            turn = [slice(None, None, -1) if self._rng.random() < 0.5 else slice(None) for _ in range(2)]
            image, valid, target = (np.roll(a, roll, axis=1)[turn[0], turn[1]].copy() for a in (image, valid, target))
        return torch.from_numpy(image)[None], torch.from_numpy(valid), torch.from_numpy(target), number, i


def against_per_sample() -> list[list[str]]:
    """Rows: time of a batch of ours and of the per-sample pipeline, in the same rounds, and their ratio."""
    torch.set_num_threads(1)
    wells = make_wells(4)
    store = WindowStore(wells, range(len(wells)), WINDOW, WINDOW)
    scale = fit_normalization([w.values for w in wells], "robust", 16.0).scale

    def whole_pass(loader) -> Callable[[], float]:
        def measure() -> float:
            batches = iter(loader)
            next(batches)  # workers are started for it
            start = time.perf_counter()
            count = sum(1 for _ in batches)
            return (time.perf_counter() - start) / count

        return measure

    rows = []
    for augment in ("none", "roll_flip"):
        plain = PerSample(wells, augment != "none")
        measure = {"ours": whole_pass(make_loader(store, augment, scale))}
        for workers in (0, 2):
            measure[f"{workers}"] = whole_pass(DataLoader(plain, BATCH, shuffle=True, num_workers=workers))
        found = in_rounds(measure, at_least=3, at_most=7, seconds=15, say=f"against per-sample, augment={augment}")
        for workers in (0, 2):
            theirs = found[f"{workers}"]
            rows.append(
                [
                    augment, f"{workers}", found["ours"].text("ms", 1e3), theirs.text("ms", 1e3),
                    ratio(theirs, found["ours"]).text("times"),
                ]
            )  # fmt: skip
    return rows
