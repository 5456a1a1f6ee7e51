"""Makes the quantizations of the page, each once, and keeps them.

The steps are those of `python -m wellseg.quantize` without its gate; what the full-precision model answers is computed
once for all settings, and speed is not measured.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wellseg import build, config
from wellseg.data.datasets.corroseg.module import CorroSegDataModule
from wellseg.files import path_sha256, write_json
from wellseg.inference.wells import Predictor
from wellseg.metrics.segmentation import SegmentationScores
from wellseg.quant.calibration import as_recorded, gather
from wellseg.quant.comparison import batches, compare
from wellseg.quant.compression import full_precision
from wellseg.quant.quantizer import as_quantizer
from wellseg.quant.report import scores_of, settings_of
from wellseg.types import Batch

SPLIT = {"num_folds": 4, "fold": 2}
"""The split of the real wells: that of the models of benchmarks/quality."""
BATCH = 32
PARTS = {"val": "validation", "test": "test"}
UNGATED = "quant.max_dice_drop=null"
"""Nothing is widened or refused: the page shows what a setting does by itself."""
RESULT = "result.json"


@dataclass(frozen=True)
class Setting:
    """One quantization: `name` of its folder, `method` that the curves group it by, overrides that choose it."""

    name: str
    method: str
    overrides: tuple[str, ...]

    def settings(self) -> Any:
        """The object of the group quant."""
        cfg = config.load("quantize", [*self.overrides, UNGATED])
        return build.part(cfg, "quant", {"quant": self.name})


COURSE, LARGEST, SQUARES = "the course's scheme", "per channel, to the largest weight", "per channel, least squares"
GPTQ, TUNED, MIXED = "GPTQ, wide ends", "GPTQ and fine-tuning, wide ends", "mixed"
WITHOUT_TUNING = ("quant.finetune_steps=0", "quant.calibration_windows=256")
TABLE = (
    Setting("course8", COURSE, ("quant=course8",)),
    Setting("course4", COURSE, ("quant=course4",)),
    Setting("int8", SQUARES, ("quant=int8",)),
    Setting("int4", TUNED, ("quant=int4",)),
    Setting("int3", TUNED, ("quant=int3",)),
    Setting("mixed", MIXED, ("quant=mixed",)),
)
"""Rows of the tables: the choices of conf/quant as they are."""
CURVE = (
    *(Setting(f"course_{b}", COURSE, ("quant=course4", f"quant.bits={b}")) for b in (6, 5, 3, 2)),
    *(Setting(f"largest_{b}", LARGEST, ("quant=int8", f"quant.bits={b}", "quant.scale=max")) for b in (8, 6, 5, 4, 3, 2)),
    *(Setting(f"squares_{b}", SQUARES, ("quant=int8", f"quant.bits={b}")) for b in (6, 5, 4, 3, 2)),
    *(Setting(f"gptq_{b}", GPTQ, ("quant=int4", f"quant.bits={b}", *WITHOUT_TUNING)) for b in (4, 3, 2)),
    *(Setting(f"mixed_{kb}", MIXED, ("quant=mixed", f"quant.max_bytes={kb}000")) for kb in (250, 200, 160)),
    Setting("tuned_2", TUNED, ("quant=int3", "quant.bits=2")),
)  # fmt: skip
"""Further points of the curves."""


@dataclass(frozen=True)
class Source:
    """A full-precision model file, the folder `runs`/`name` for what is made of it, and the real wells in `root`.
    seed: of the calibration windows."""

    name: str
    path: Path
    runs: Path
    root: Path
    seed: int = 0

    def result(self, setting: Setting, *, make: bool) -> dict[str, Any] | None:
        """What `setting` makes of the model: the kept result where it fits, else a new one, or None unless `make`.

        "bytes" of the whole file, "wells" of the calibration, "layers" (see
        wellseg.quant.storage.Quantized), and by part, "val" and "test", the "scores" before and after, as in report.json.
        """
        file = self.runs / self.name / setting.name / RESULT
        asked = self._asked(setting)
        if file.is_file():
            found = json.loads(file.read_text())
            if found["made_of"] == asked:
                return found
        if not make:
            return None
        found = {"made_of": asked, **self._quantized(setting, file.parent)}
        write_json(file, found)
        return found

    def split(self) -> dict[str, list[int]]:
        """The numbers of the wells of every part."""
        numbers = {part: set() for part in ("train", *PARTS.values())}
        for well in self._data.wells:
            if self._data.parts.get(well.name) in numbers:
                numbers[self._data.parts[well.name]].add(int(well.group.rpartition("_")[2]))
        return {part: sorted(found) for part, found in numbers.items()}

    @cached_property
    def parameters(self) -> int:
        return sum(p.numel() for p in full_precision(self.path).network.parameters())

    @cached_property
    def sha256(self) -> str:
        return path_sha256(self.path)

    def _asked(self, setting: Setting) -> dict[str, Any]:
        """All that decides a result."""
        quant = settings_of(setting.settings())
        return {"sha256": self.sha256, "quant": quant, "split": SPLIT, "seed": self.seed}

    def _quantized(self, setting: Setting, folder: Path) -> dict[str, Any]:
        quantizer = as_quantizer(setting.settings())
        model = full_precision(self.path)
        windows = quantizer.calibration_windows
        calibration, wells = gather(self._data, model.normalization, windows, torch.device("cpu"), self.seed)
        folder.mkdir(parents=True, exist_ok=True)
        made = quantizer.quantize(model, calibration, folder)
        after = _answers(made.path)
        scores = SegmentationScores(model.threshold)
        found = {}
        for part in PARTS:
            kept = iter(self._full[part])
            found[part] = scores_of(compare(lambda _, kept=kept: next(kept), after, self._windows(part), scores))
        return {"bytes": made.path.stat().st_size, "wells": wells, "layers": made.layers, "scores": found}

    @cached_property
    def _data(self) -> CorroSegDataModule:
        data = CorroSegDataModule(root=str(self.root), batch_size=BATCH, **SPLIT)
        data.setup()
        return data

    @cached_property
    def _full(self) -> dict[str, list[np.ndarray]]:
        """Probabilities of the full-precision model by part and batch."""
        model = _answers(self.path)
        return {part: [model(as_recorded(batch)) for batch in self._windows(part)] for part in PARTS}

    def _windows(self, part: str) -> Iterator[Batch]:
        store = self._data.store(PARTS[part])
        return (store.gather(numbers) for numbers in batches(self._data, PARTS[part]))


def _answers(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    return Predictor.from_file(path, device="cpu", width="native")
