"""Measures inference of the course's computation, wellseg's and MONAI BasicUNet's on windows and bands."""

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.artifact import write_artifact
from benchmarks.common.page import Sample, digits, in_rounds, progress, ratio, table
from benchmarks.common.process import MALLOC, Key, Worker, crowded, judged, serve, slowed
from wellseg import build, config
from wellseg.data.normalize import Normalization
from wellseg.inference.engines.pipeline import Pipeline
from wellseg.inference.wells import Predictor

WINDOW, COLUMNS = 36, 36
COURSE, OURS, OURS_FP32, BAND = "the course", "wellseg, bf16", "wellseg, fp32", "wellseg, bf16, bands of a well"
COMPILED = "wellseg, bf16, compiled"
PEER = "BasicUNet"
TARGET, TARGET_FP32 = 12.0, 3.0
AT_LEAST_SECONDS = 0.3

HOW = {
    COURSE: "network alone, fp32, eager",
    "cylinder, fp32": "network alone, fp32, eager",
    OURS_FP32: "Pipeline, fp32 channels-last, eager",
    OURS: "Pipeline, bf16 channels-last, eager",
    COMPILED: "Pipeline, bf16 channels-last, inductor with frozen weights",
    "wellseg, fp32, bands of a well": "Predictor, fp32",
    BAND: "Predictor, bf16",
    "unet_cylinder, fp32": "Pipeline, fp32 channels-last, eager",
    "unet_cylinder, bf16": "Pipeline, bf16 channels-last, eager",
    f"{PEER}, fp32": "network alone, fp32, eager",
    f"{PEER}, fp32 channels-last": "network alone, fp32 channels-last, eager",
    f"{PEER}, bf16": "network alone, bf16, eager",
    f"{PEER}, bf16 channels-last": "network alone, bf16 channels-last, eager",
}
"""Name -> how it computes. `Pipeline` is the network with null handling, normalisation and sigmoid around it."""


def prepare(threads: int, batch: int, rows: int) -> dict[str, Callable[[], float]]:
    """Name -> windows of 36 x 36 per second, over `batch` windows, or over a well of `rows` rows for bands; "compile" ->
    seconds of the first compiled pass.
    """
    with tempfile.TemporaryDirectory(prefix="wellseg_bench_") as folder:
        artefact = write_artifact(Path(folder) / "model.safetensors")
        bands = {
            name: Predictor.from_file(artefact, precision=precision)
            for name, precision in ((BAND, "bfloat16"), ("wellseg, fp32, bands of a well", "float32"))
        }
    rng = np.random.default_rng(0)
    well = rng.standard_normal((rows, COLUMNS), dtype=np.float32)
    windows = torch.from_numpy(rng.standard_normal((batch, 1, WINDOW, COLUMNS), dtype=np.float32))

    def per_second(run: Callable[[], object], count: float) -> Callable[[], float]:
        ready = False

        def measure() -> float:
            nonlocal ready
            if not ready:
                run()
            ready, runs, start = True, 0, time.perf_counter()
            while (seconds := time.perf_counter() - start) < AT_LEAST_SECONDS:
                run()
                runs += 1
            return runs * count / seconds

        return measure

    def bare(overrides: list[str], dtype: torch.dtype, layout: torch.memory_format) -> Callable[[], float]:
        module = network(overrides).to(dtype=dtype, memory_format=layout)
        image = windows.to(dtype).contiguous(memory_format=layout)
        return per_second(torch.inference_mode()(lambda: module(image)), batch)

    def pipeline(overrides: list[str], precision: str) -> Callable[[], float]:
        module = Pipeline(network(overrides), Normalization(), precision).eval()
        return per_second(torch.inference_mode()(lambda: module(windows)), batch)

    cylinder, peer = ["experiment=exp2001", "model.padding=cylinder"], ["model=basic_unet"]
    plain, last = torch.contiguous_format, torch.channels_last
    compiled = Pipeline(network(cylinder), Normalization(), "bfloat16").eval()

    def compile_seconds() -> float:
        import torch._inductor.config

        torch._inductor.config.freezing = True
        compiled.network.compile()
        start = time.perf_counter()
        with torch.inference_mode():
            compiled(windows)
        return time.perf_counter() - start

    return {
        COURSE: bare(["experiment=exp2001"], torch.float32, plain),
        "cylinder, fp32": bare(cylinder, torch.float32, plain),
        OURS_FP32: pipeline(cylinder, "float32"),
        OURS: pipeline(cylinder, "bfloat16"),
        "compile": compile_seconds,
        COMPILED: per_second(torch.inference_mode()(lambda: compiled(windows)), batch),
        **{name: per_second(lambda p=p: p(well), rows / WINDOW) for name, p in bands.items()},
        "unet_cylinder, fp32": pipeline(["model=unet_cylinder"], "float32"),
        "unet_cylinder, bf16": pipeline(["model=unet_cylinder"], "bfloat16"),
        f"{PEER}, fp32": bare(peer, torch.float32, plain),
        f"{PEER}, fp32 channels-last": bare(peer, torch.float32, last),
        f"{PEER}, bf16": bare(peer, torch.bfloat16, plain),
        f"{PEER}, bf16 channels-last": bare(peer, torch.bfloat16, last),
    }


def network(overrides: list[str]) -> torch.nn.Module:
    """An untrained network of the configuration: its speed does not depend on its weights."""
    torch.manual_seed(0)
    return build.part(config.load("train", overrides), "model", {}).eval()


@dataclass(frozen=True)
class Inference:
    """Windows per second on a number of threads, by name and setting of malloc."""

    threads: int
    batch: int
    rows: int
    found: dict[Key, Sample]
    compile_seconds: float | None

    @property
    def reference(self) -> Key:
        """The course's computation under whichever setting of malloc makes it faster."""
        return max(((COURSE, m) for m in MALLOC), key=lambda key: self.found[key].median)

    def times(self, name: str, malloc: str = "kept") -> Sample:
        """How many times the reference's windows per second, round by round."""
        return ratio(self.found[name, malloc], self.found[self.reference])

    def best(self, *names: str) -> str:
        return max((n for n in names if (n, "kept") in self.found), key=lambda n: self.found[n, "kept"].median)


def measure(threads: int, batch: int, rows: int, *, rounds: int, compiled: bool) -> Inference:
    """All variants in turn within each round; the course's and ours under both settings of malloc."""
    wanted = [(n, "kept") for n in HOW if compiled or n != COMPILED]
    wanted += [(n, "default") for n in (COURSE, OURS_FP32, OURS, BAND)]
    seconds = None
    with ExitStack() as stack:
        workers = {
            m: stack.enter_context(
                Worker("benchmarks.speed.inference", threads=threads, malloc=m, batch=batch, rows=rows)
            )
            for m in MALLOC
        }
        if compiled:
            progress("compiling inference")
            seconds = workers["kept"]("compile")
        found = in_rounds(
            {key: (lambda key=key: workers[key[1]](key[0])) for key in wanted},
            at_least=rounds, at_most=rounds, seconds=0, say=f"inference, threads {threads}",
        )  # fmt: skip
    return Inference(threads, batch, rows, found, seconds)


# --- page -------------------------------------------------------------------------------------------------------------


def targets(runs: list[Inference]) -> list[list[str]]:
    """Rows of the table of targets."""
    rows = []
    for i in runs:
        ours, ours_fp32 = i.best(OURS, COMPILED, BAND), i.best(OURS_FP32, "cylinder, fp32")
        slower = slowed(runs[0].found, i.found)
        peer = i.best(*(n for n in HOW if n.startswith(PEER)))
        for name, limit in ((ours, TARGET), (ours_fp32, TARGET_FP32)):
            times = i.times(name)
            what = f"inference, student, threads {i.threads}: {name}, times the course's"
            said = judged(times.median, limit, {(name, "kept"), i.reference}, slower)
            rows.append([what, times.text("times"), f"at least {limit:g}", said])
        ahead = ratio(i.found[ours, "kept"], i.found[peer, "kept"])
        what = f"the same, {ours}, times MONAI's at its best ({peer})"
        said = judged(ahead.median, 1.0, {(ours, "kept"), (peer, "kept")}, slower)
        rows.append([what, ahead.text("times"), "ahead", said])
    return rows


def section(runs: list[Inference]) -> list[str]:
    lines = [
        "## Inference",
        "",
        f"Windows of 36 x 36 per second: a batch of {runs[0].batch} of them, or for bands a well of {runs[0].rows:,} rows, which",
        "are as many windows as 36 goes into them. The reference is `padding=turns`, fp32, eager. The student everywhere but",
        "where another network is named. `Pipeline` and `Predictor` do more than the networks that are measured alone: they",
        "find nulls, normalise and take the sigmoid.",
        "",
    ]
    for i in runs:
        rows = [
            [name, HOW[name], malloc, sample.text("windows/s"), i.times(name, malloc).text("times")]
            for (name, malloc), sample in i.found.items()
        ]
        lines += [f"### Threads {i.threads}", ""]
        lines += table(["", "computes in", "malloc", "speed", "against the reference"], rows)
        lines += ["", f"Reference: {i.reference[0]}, malloc {i.reference[1]}."]
        if i.compile_seconds is not None:
            lines += [f"Compiling took {digits(i.compile_seconds)} s, with an empty cache."]
        lines += ["", *crowded(slowed(runs[0].found, i.found), f"inference, threads {i.threads}")]
    return lines


if __name__ == "__main__":
    serve(prepare)
