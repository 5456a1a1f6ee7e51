"""Writes model files of the student's architecture with untrained weights: speed does not depend on them."""

from pathlib import Path

import torch

from wellseg import artifact, build, config
from wellseg.artifact import Artifact
from wellseg.data.normalize import Normalization
from wellseg.quant.quantizer import Calibration
from wellseg.quant.static import StaticScheme

WINDOW = (36, 36)
STUDENT = ("experiment=exp2001", "model.padding=cylinder")


def write_artifact(path: Path, overrides: tuple[str, ...] = STUDENT) -> Path:
    """Write the network that `overrides` of conf/train.yaml describe; returns `path`."""
    torch.manual_seed(0)
    cfg = config.load("train", list(overrides))
    network = build.part(cfg, "model", {})
    metadata = {
        "normalization": Normalization(0.0, 1.0, 16.0).as_dict(),
        "classes": ["intact", "defect"],
        "threshold": 0.5,
        "input": {"window": WINDOW[0], "widths": [WINDOW[1]], "layout": "single", "channels": 1},
    }
    artifact.save(path, network, build.arguments(cfg, "model"), metadata)
    return path


def write_int8(model: Artifact, folder: Path) -> Path:
    """The ONNX file of `quant=int8_static` for a network whose answers do not matter: calibrated on noise, not fine-tuned."""
    folder.mkdir()
    noise = [torch.randn(16, 1, *WINDOW, generator=torch.Generator().manual_seed(0))]
    scheme = StaticScheme("int8_static", finetune_steps=0)
    return scheme.quantize(model, Calibration([], noise, torch.device("cpu"), 0), folder).path
