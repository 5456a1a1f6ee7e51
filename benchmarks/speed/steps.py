"""Takes training steps on any device in several ways: the course's computation, wellseg's, a peer's.

The course's is experiment exp2001 (student) or exp53 (teacher) as it was: `padding=turns`, which triples the image, fp32,
eager, and a Dataset that cuts, rolls and flips one window at a time in numpy, collated by a DataLoader without workers.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import repeat

import torch
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common.pipeline import PerSample
from wellseg import build, config
from wellseg.data.loader import WindowLoader
from wellseg.data.normalize import fit_normalization
from wellseg.data.sampler import WindowSampler
from wellseg.data.wells.well import Well
from wellseg.data.wells.windows import WindowStore
from wellseg.training.objectives import Supervised
from wellseg.training.task import SegmentationTask
from wellseg.types import Batch

WINDOW = 36
WINDOWS, PER_SAMPLE, ONE_BATCH = "WindowLoader", "per sample", "none"
"""Where batches come from; ONE_BATCH is the same one again and again, to see the step alone."""
AT_LEAST_SECONDS = 0.3


@dataclass(frozen=True)
class Variant:
    """One way to train: overrides of conf/train.yaml, where its batches come from, and how it computes.

    compiled: mode of torch.compile, None for eager.
    """

    overrides: tuple[str, ...]
    loader: str = WINDOWS
    bf16: bool = False
    channels_last: bool = False
    compiled: str | None = None

    @property
    def how(self) -> str:
        layout = ["channels-last"] if self.channels_last else []
        return ", ".join(["bf16" if self.bf16 else "fp32", *layout, "compiled" if self.compiled else "eager"])


class Batches:
    """Endless batches of `size` windows of `wells`, rolled and flipped, from either loader, on `device`."""

    def __init__(self, wells: list[Well], size: int, device: str | torch.device = "cpu") -> None:
        self.size, self.device = size, torch.device(device)
        self.normalization = fit_normalization([w.values for w in wells], "robust", 16.0)
        self._wells = wells
        self._store = WindowStore(wells, range(len(wells)), WINDOW, WINDOW).to(self.device)

    def __len__(self) -> int:
        """Batches in one pass over the wells."""
        return len(self._store) // self.size

    def of(self, loader: str) -> Iterator[Batch]:
        if loader == PER_SAMPLE:
            return self._per_sample()
        return repeat(next(self._windows())) if loader == ONE_BATCH else self._windows()

    def _windows(self) -> Iterator[Batch]:
        choices = {"augment": "roll_flip"}
        augment = build.part(config.load("train", ["augment=roll_flip"]), "augment", choices)
        sampler = WindowSampler(self._store.group_of, self.size, seed=0, shuffle=True)
        loader = WindowLoader(
            self._store, sampler, device=self.device, augment=augment, scale=self.normalization.scale
        )  # fmt: skip
        while True:
            yield from (batch for batch in loader if len(batch.index) == self.size)
            sampler.set_epoch(sampler.epoch + 1)

    def _per_sample(self) -> Iterator[Batch]:
        loader = DataLoader(PerSample(self._wells, augment=True), self.size, shuffle=True, drop_last=True)
        while True:
            for batch in loader:
                yield Batch(*(t.to(self.device) for t in batch))


class Stepper:
    """One variant with its own network, optimizer and batches."""

    def __init__(self, variant: Variant, batches: Batches) -> None:
        self._variant, self._batches, self.task = variant, batches, None

    def images_per_second(self) -> float:
        """Of loading and training, over as many whole steps as take AT_LEAST_SECONDS."""
        if self.task is None:
            self.first_step()
        steps = 0
        start = time.perf_counter()
        while time.perf_counter() - start < AT_LEAST_SECONDS:
            self.step()
            steps += 1
        self._wait()  # once: a GPU works on a step while the next one is being asked for
        return steps * self._batches.size / (time.perf_counter() - start)

    def first_step(self) -> float:
        """Seconds of the first step, which allocates, and compiles where that is asked for."""
        self.build()
        start = time.perf_counter()
        self.step()
        self._wait()
        return time.perf_counter() - start

    def build(self) -> None:
        """Make network, optimizer and stream of batches, without taking a step."""
        v, device = self._variant, self._batches.device
        torch.manual_seed(0)
        cfg = config.load("train", list(v.overrides))
        network = build.part(cfg, "model", {})
        self.task = SegmentationTask(
            network, Supervised(build.part(cfg, "loss", {})), None, build.part(cfg, "metrics", {}),
            normalization=self._batches.normalization, channels_last=v.channels_last,
        ).to(device)  # fmt: skip
        if v.compiled:
            self.task.network.compile(mode=v.compiled)
        self.optimizer = build.part(cfg, "optimizer", {})(network.parameters())
        self._stream = self._batches.of(v.loader)

    def step(self) -> None:
        """Load, normalise, forward, loss, backward, Adam."""
        batch, device = next(self._stream), self._batches.device.type
        if self._variant.compiled:
            torch.compiler.cudagraph_mark_step_begin()  # what the last step left in a CUDA graph's memory is done with
        with torch.autocast(device, torch.bfloat16) if self._variant.bf16 else nullcontext():
            loss = self.task.objective(self.task, batch)["loss"]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def _wait(self) -> None:
        if self._batches.device.type == "cuda":
            torch.cuda.synchronize()


def operations(overrides: tuple[str, ...]) -> float:
    """Floating-point operations of the convolutions in a training step on one 36 x 36 window, forward and backward."""
    network = build.part(config.load("train", list(overrides)), "model", {}).to("meta")  # shapes alone, no work
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 1, WINDOW, WINDOW, device="meta")).sum().backward()
    return float(counter.get_total_flops())


def measures(variants: dict[str, Variant], batches: Batches) -> dict[str, Callable[[], float]]:
    """name -> images per second; "compile NAME" -> seconds of the first step, for those that are compiled."""
    steppers = {name: Stepper(v, batches) for name, v in variants.items()}
    compiled = {f"compile {name}": steppers[name].first_step for name, v in variants.items() if v.compiled}
    return {name: s.images_per_second for name, s in steppers.items()} | compiled
