"""The smallest model files of pictures, and pictures: for the tests of prediction and export."""

import numpy as np
import torch
from PIL import Image

from wellseg import artifact
from wellseg.artifact import architectures


def image_model(
    path, classes=("road", "car"), *, name="unet_classic", channels=3, submission=None, given=None, **arguments
):
    """A model file with a tiny network of random weights that tells pictures apart; `given` goes into "input"."""
    torch.manual_seed(0)
    tiny = {"unet_classic": {"step": 2, "padding": "zero"}, "unet": {"base": 2, "blocks": 2}}
    tiny |= {"unet_original": {"base": 2, "blocks": 2}, "basic_unet": {"features": [4, 4, 8, 8, 8, 4]}}
    outputs = 1 if len(classes) == 2 else len(classes)
    arguments = {"in_channels": channels, "out_channels": outputs, **tiny.get(name, {}), **arguments}
    network = architectures()[name](**arguments)
    for weight in network.parameters():
        torch.nn.init.kaiming_normal_(weight) if weight.ndim > 1 else torch.nn.init.uniform_(weight, 0.5, 1)
    metadata = {
        "normalization": {"center": [128.0] * channels, "scale": [64.0] * channels, "clip": None},
        "threshold": 0.5,
        "classes": list(classes),
        "input": {"kind": "image", "channels": channels, "resize": None, "window": 32, "widths": [48], **(given or {})},
        "submission": submission,
        "versions": {"wellseg": "0"},
        "parent_run": "somewhere",
    }
    if metadata["input"].pop("per_image", False):
        metadata["normalization"]["per_image"] = True
    artifact.save(path, network, arguments, metadata)
    return path


def picture(height=40, width=52, channels=3, seed=0):
    """(H, W, C) uint8: noise on slow waves."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = 128 + 60 * np.sin(y / 7 + seed)[..., None] * np.cos(x / 5)[..., None]
    return np.clip(waves + rng.normal(0, 25, (height, width, channels)), 0, 255).astype(np.uint8)


def save_picture(path, *size, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = picture(*size, seed=seed)
    Image.fromarray(values).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))
    return values
