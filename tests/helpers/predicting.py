"""The smallest model file, and what the tests of `predict` say again and again."""

import json

import numpy as np
import torch
from running import command

from wellseg import artifact
from wellseg.inference.wells import Predictor
from wellseg.models.unet_flex import UNetFlex


def tiny_model(path, gain=100):
    """A model file with a network of nearly nothing, whose threshold parts the probabilities of noise in halves.

    gain: of the last layer; at 1 the probabilities crowd within a few steps of float16.
    """
    torch.manual_seed(0)
    arguments = {"thickness": 2, "encoders": [1], "decoders": [1]}
    network = UNetFlex(**arguments)
    with torch.no_grad():
        [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)][-1].weight *= gain
    metadata = {
        "normalization": {"center": 0.0, "scale": 0.02, "clip": 16.0},
        "threshold": 0.5,
        "classes": ["intact", "defect"],
        "input": {"window": 36, "widths": [36]},
        "versions": {"wellseg": "0"},
        "parent_run": "somewhere",
    }
    artifact.save(path, network, arguments, metadata)
    noise = np.random.default_rng(0).normal(0, 0.02, size=(200, 36))
    metadata["threshold"] = float(np.median(Predictor.from_file(path)(noise)))
    artifact.save(path, network, arguments, metadata)


def values_of(rows=100, columns=36, seed=0):
    """A well of noise with 11 pixels without data."""
    values = np.random.default_rng(seed).normal(0, 0.02, size=(rows, columns)).astype(np.float32)
    values[3:5, 4:9] = -999.25
    values[7, 0] = np.nan
    return values


def predict(model, given, out, *more, code=0):
    done = command("predict", f"artifact={model}", f"input={given}", f"output={out}", *more)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def manifest_of(out):
    return json.loads((out / "manifest.json").read_text())


def results_of(out):
    """Contents of all that was written except what tells the time."""
    return {
        str(p.relative_to(out)): p.read_bytes()
        for p in out.rglob("*")
        if p.is_file() and p.name not in ("manifest.json", "predict.log", ".lock")
    }


def patch_folder(folder, indices, seed=0):
    """Patches of a single well of 10, those of `indices`."""
    values = np.cumsum(np.random.default_rng(seed).normal(0, 0.01, (360, 36)), axis=0).astype(np.float32)
    folder.mkdir(exist_ok=True)
    for k in indices:
        np.save(folder / f"well_1_patch_{k}.npy", values[36 * k : 36 * k + 36])
    return values
