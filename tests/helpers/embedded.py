"""The embedded runtime on this computer, compiled with the sanitizers, and networks and logs to feed it."""

import subprocess

import numpy as np
import torch
from places import ROOT, SOURCE

from wellseg.artifact import Artifact
from wellseg.data.nulls import NULL_VALUES
from wellseg.models.unet_flex import UNetFlex
from wellseg.quant.tensors import quantize_tensor

HOST = ROOT / "tests" / "firmware" / "host.c"
SOURCES = SOURCE / "firmware"
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
SANITIZED = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
TINY = {"thickness": 2, "encoders": [1], "decoders": [1]}
METADATA = {
    "normalization": {"center": 0.01, "scale": 0.5, "clip": 3.0},
    "threshold": 0.4,
    "classes": ["intact", "defect"],
    "input": {"window": 36, "widths": [36]},
}
PACKINGS = {
    "float32": None,
    "int4 per group": {"bits": 4, "granularity": "group", "group_size": 7},
    "uint3 per channel": {"bits": 3, "symmetric": False},
    "uint8 per layer": {"bits": 8, "symmetric": False, "granularity": "layer", "scale": "max"},
    "uint16 per channel": {"bits": 16, "symmetric": False, "scale": "max"},
    "int2 per channel": {"bits": 2},
}


def compiled(folder, options, *sources, include=SOURCES):
    program = folder / "host"
    command = ["gcc", *STRICT, *options, f"-I{include}", *map(str, sources), "-lm", "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def sanitized_host(folder):
    """tests/firmware/host.c with the runtime."""
    return compiled(folder, SANITIZED, HOST, *SOURCES.glob("*.c"))


def started(host, *arguments):
    return subprocess.run([host, *map(str, arguments)], capture_output=True, text=True, check=False)


def model_of(packing=None, metadata=METADATA, **arguments):
    """A network whose probabilities fill 0..1, with the weights that `packing` leaves of it."""
    torch.manual_seed(0)
    network = UNetFlex(**arguments).eval()
    state, packed = network.state_dict(), {}
    with torch.no_grad():
        logits = network(torch.randn(1, 1, 60, 36))
    network.refinement[-1].weight.data *= 2 / logits.std()
    network.refinement[-1].bias.data.sub_(logits.median()).mul_(2 / logits.std())
    for name in state if packing is not None else ():
        if name.endswith("weight"):
            packed[name] = quantize_tensor(state[name], **packing)
            state[name].copy_(packed[name].dequantize())
    return Artifact(network, {**metadata, "weights_sha256": "none"}, packed)


def values_of(rows, columns=36, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 0.8, (rows, columns)).astype(np.float32)
    holes = rng.random(values.shape) < 0.05
    values[holes] = rng.choice([*NULL_VALUES, np.nan, np.inf, -np.inf], holes.sum())
    values.reshape(-1)[-1] = 3e38  # a number, if a wild one
    return values
