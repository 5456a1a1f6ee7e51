"""Measures training in images per second: the course's computation, wellseg's and MONAI BasicUNet's."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from benchmarks.common.page import Sample, digits, in_rounds, progress, ratio, table
from benchmarks.common.pipeline import make_wells
from benchmarks.common.process import MALLOC, Key, Worker, crowded, judged, serve, slowed
from benchmarks.speed.steps import ONE_BATCH, PER_SAMPLE, WINDOW, Batches, Variant, measures, operations

COURSE, OURS = "the course", "wellseg"
TARGET = 7.0


def variants(experiment: str) -> dict[str, Variant]:
    """By the name that the page shows."""
    cylinder = (f"experiment={experiment}", "model.padding=cylinder")
    found = {
        COURSE: Variant((f"experiment={experiment}",), PER_SAMPLE),
        f"{OURS}, fp32": Variant(cylinder, channels_last=True),
        OURS: Variant(cylinder, bf16=True, channels_last=True),
    }
    if experiment == "exp2001":
        peer = ("model=basic_unet",)
        found |= {
            f"{COURSE}, step alone": Variant((f"experiment={experiment}",), ONE_BATCH),
            f"{OURS}, step alone": Variant(cylinder, ONE_BATCH, bf16=True, channels_last=True),
            f"{OURS}, compiled": Variant(cylinder, bf16=True, channels_last=True, compiled="default"),
            "unet_cylinder": Variant(("model=unet_cylinder",), bf16=True, channels_last=True),
            "BasicUNet, fp32": Variant(peer),
            "BasicUNet, fp32 channels-last": Variant(peer, channels_last=True),
            "BasicUNet, bf16": Variant(peer, bf16=True),
            "BasicUNet, bf16 channels-last": Variant(peer, bf16=True, channels_last=True),
        }
    return found


def prepare(threads: int, experiment: str, batch: int) -> dict[str, Callable[[], float]]:
    """What a worker can measure; see benchmarks.speed.steps.measures."""
    torch.manual_seed(0)
    return measures(variants(experiment), Batches(make_wells(2, rows=WINDOW * 2 * batch), batch))


@dataclass(frozen=True)
class Training:
    """Images per second of one network on a number of threads, by name and setting of malloc.

    compile_seconds: of the first step of the compiled variant, None where none was measured.
    """

    experiment: str
    threads: int
    batch: int
    found: dict[Key, Sample]
    compile_seconds: float | None

    @property
    def reference(self) -> Key:
        """The course's computation under whichever setting of malloc makes it faster."""
        return max(((COURSE, m) for m in MALLOC), key=lambda key: self.found[key].median)

    def times(self, name: str, malloc: str = "kept") -> Sample:
        """How many times the reference's images per second, round by round."""
        return ratio(self.found[name, malloc], self.found[self.reference])

    @property
    def best_peer(self) -> str:
        return max((n for n, _ in self.found if n.startswith("BasicUNet")), key=lambda n: self.found[n, "kept"].median)


def measure(experiment: str, threads: int, batch: int, *, rounds: int, compiled: bool) -> Training:
    """All variants in turn within each round, under both settings of malloc those that the targets are about."""
    names = [n for n, v in variants(experiment).items() if compiled or not v.compiled]
    wanted = [(n, "kept") for n in names] + [(COURSE, "default"), (OURS, "default")]
    seconds = None
    options = {"experiment": experiment, "batch": batch}
    with ExitStack() as stack:
        workers = {
            m: stack.enter_context(Worker("benchmarks.speed.training", threads=threads, malloc=m, **options))
            for m in MALLOC
        }
        if compiled:
            progress("compiling a training step")
            seconds = workers["kept"](f"compile {OURS}, compiled")
        found = in_rounds(
            {key: (lambda key=key: workers[key[1]](key[0])) for key in wanted},
            at_least=rounds, at_most=rounds, seconds=0, say=f"training {experiment}, threads {threads}",
        )  # fmt: skip
    return Training(experiment, threads, batch, found, seconds)


# --- page -------------------------------------------------------------------------------------------------------------


def targets(runs: list[Training]) -> list[list[str]]:
    """Rows of the table of targets."""
    rows = []
    for t in runs:
        what = {"exp2001": "student", "exp53": "teacher"}[t.experiment]
        times, slower, ours = t.times(OURS), _slowed(t, runs), (OURS, "kept")
        rows.append(
            [
                f"training step, {what}, batch {t.batch}, threads {t.threads}: times the course's",
                times.text("times"), f"at least {TARGET:g}",
                judged(times.median, TARGET, {ours, t.reference}, slower),
            ]
        )  # fmt: skip
        if t.experiment == "exp2001":
            peer = (t.best_peer, "kept")
            ahead = ratio(t.found[ours], t.found[peer])
            rows.append(
                [
                    f"the same, times MONAI's BasicUNet at its best ({t.best_peer.partition(', ')[2]})",
                    ahead.text("times"), "ahead", judged(ahead.median, 1.0, {ours, peer}, slower),
                ]
            )  # fmt: skip
    return rows


def section(runs: list[Training]) -> list[str]:
    lines = [
        "## Training step",
        "",
        "Loading a batch of 36 x 36 windows, rolled and flipped, and one step on it: normalise, forward, loss, backward,",
        "Adam. Images per second; times is against the course's computation under the setting of malloc that is faster for",
        "it. The course: `padding=turns`, fp32, eager, one window at a time in numpy and a `DataLoader` without workers.",
        "wellseg and the others: `WindowLoader`; autocast where bf16. MONAI's BasicUNet has 575,897 parameters, the student",
        "576,721, the teacher 6,454,529; GFLOP are those of the convolutions, forward and backward.",
        "",
    ]
    for t in runs:
        known = variants(t.experiment)
        work = {name: f"{operations(known[name].overrides) / 1e9:.3f}" for name, _ in t.found}
        rows = [
            [
                name,
                known[name].loader,
                known[name].how,
                work[name],
                malloc,
                s.text("images/s"),
                t.times(name, malloc).text("times"),
            ]
            for (name, malloc), s in t.found.items()
        ]  # fmt: skip
        lines += [f"### {t.experiment}, batch {t.batch}, threads {t.threads}", ""]
        lines += table(
            ["", "loader", "computes in", "GFLOP per image", "malloc", "speed", "against the reference"], rows
        )
        lines += ["", f"Reference: {t.reference[0]}, malloc {t.reference[1]}."]
        if t.compile_seconds is not None:
            lines += [f"First compiled step: {digits(t.compile_seconds)} s, with an empty cache."]
        lines += [""]
    for t in runs:
        lines += crowded(_slowed(t, runs), f"{t.experiment}, threads {t.threads}")
    return lines


def _slowed(training: Training, runs: list[Training]) -> set[Key]:
    alone = next((t for t in runs if t.experiment == training.experiment and t.threads == 1), training)
    return slowed(alone.found, training.found)


if __name__ == "__main__":
    serve(prepare)
