"""Small networks as artefacts, and what they compute: for the tests of exports and engines."""

import numpy as np
import torch

from wellseg.artifact import Artifact, architecture_name
from wellseg.inference.engines.pipeline import Pipeline
from wellseg.inference.engines.torch_engine import TorchEngine
from wellseg.models.unet_flex import UNetFlex


def model_of(network, *, widths=(36,)):
    """An artefact in memory of a network with random weights that make a probability of anything."""
    torch.manual_seed(0)
    for p in network.parameters():
        torch.nn.init.kaiming_normal_(p) if p.ndim > 1 else torch.nn.init.uniform_(p, 0, 0.5)
    metadata = {
        "architecture": {"name": architecture_name(type(network)), "arguments": {}},
        "normalization": {"center": 0.01, "scale": 0.5, "clip": 16.0},
        "threshold": 0.4,
        "classes": ["intact", "defect"],
        "input": {"window": 36, "widths": list(widths)},
    }
    return Artifact(network.eval(), metadata)


def tiny(**arguments):
    return UNetFlex(**{"thickness": 2, "encoders": [1, 1], "decoders": [1, 1], **arguments})


def torch_engine(model):
    return TorchEngine(Pipeline(model.network, model.normalization), model.metadata)


def image(number, rows, columns, seed=0):
    """(N, 1, H, W) as recorded: with every way to say "no data"."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(number, 1, rows, columns)).astype(np.float32)
    codes = np.array([np.nan, np.inf, -np.inf, -999.25, -999.0, -9999.0, -9999.25], np.float32)
    return np.where(rng.random(values.shape) < 0.05, rng.choice(codes, values.shape), values)
