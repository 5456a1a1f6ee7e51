"""Measures what a refactor must reproduce: training steps, logits, predictions, quantized and exported models, scores.

A group is a function `(folder) -> {case: {"exact": ..., "close": ..., "bytes": ...}}`; `folder` is an empty folder to write to.
"exact" holds on every machine, "close" to a tolerance on every machine, "bytes" (SHA-256) only in the
recorded environment (see tests/helpers/comparing.py).
Objects come from conf/ and from the commands, so that modules may move without a change here.
"""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from comparing import environment
from hydra.utils import instantiate
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from picturing import save_picture
from places import CONF, ROOT
from predicting import patch_folder, values_of
from running import TINY, command, without_figures
from safetensors.numpy import load_file

import wellseg

GOLDEN = ROOT / "tests" / "golden"
RUNS = GOLDEN / "runs"

_SMALL: dict[str, dict[str, Any]] = {
    "basic_unet": {"features": [4, 4, 8, 8, 8, 4]},
    "stacked": {"hidden": 8, "layers": 2},
    "unet": {"base": 4, "blocks": 2},
    "unet_1024": {"channels": [4, 4, 6, 8, 8, 8]},
    "unet_classic": {"step": 4},
    "unet_cylinder": {"thickness": 4},
    "unet_flex": {"thickness": 4},
    "unet_original": {"base": 4, "blocks": 2},
    "vanilla": {"hidden": [8, 8]},
}
"""Arguments that make the networks of conf/model small; the others have the size of their file."""
_SIZES = {"unet_original": (92, 92), "unet_1024": (64, 64)}
"""Rows and columns of the input where (36, 36) is too small."""
_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "unet_flex zero max nearest": ("unet_flex", {"padding": "zero", "down": "max", "up": "nearest"}),
    "unet_flex turns stride transpose": ("unet_flex", {"padding": "turns", "down": "stride", "up": "transpose"}),
    "unet_flex blur group gelu": ("unet_flex", {"down": "blur", "normalization": "group", "activation": "gelu"}),
    "unet_cylinder polyphase": ("unet_cylinder", {"azimuth": "polyphase"}),
}

_PICTURES = ["data=carvana", "data.fake=true", "data.fake_images=12", "data.fake_size=[64,96]", "data.resize=[32,48]"]
_PICTURES += ["data.shares=[0.5,0.25,0.25]", "augment=image_flip", "model=unet", "model.base=2", "model.blocks=2"]
_PICTURES += ["batch_size=2", "trainer.max_epochs=2"]
# SGD: Adam's first steps turn a rounding difference into a whole step.
_STEPS = ["optimizer=sgd", "optimizer.lr=0.05", "optimizer.momentum=0.9", "scheduler=none", "logger=none"]


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """Holds torch to one thread and deterministic kernels, and keeps the caller's random state."""
    threads, before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]), without_figures(), pytest.MonkeyPatch.context() as patch:
            # Neither times nor pictures are recorded, and they would take most of the time.
            patch.setattr("wellseg.quant.speed.ROUNDS", (1, 1))
            patch.setattr("wellseg.quant.speed.MANY", 1)
            patch.setattr("wellseg.quant.compression.picture", lambda _: Figure(figsize=(1, 1)))
            yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.set_num_threads(threads)


def networks(folder: Path) -> dict[str, Any]:
    """Returns logits of every network of conf/model and of some variants, then losses and weights of three steps of SGD."""
    cases = {p.stem: (p.stem, {}) for p in sorted((CONF / "model").glob("*.yaml"))} | _VARIANTS
    return {case: _three_steps(name, more) for case, (name, more) in cases.items()}


def _three_steps(name: str, more: Mapping[str, Any]) -> dict[str, Any]:
    torch.manual_seed(0)
    file = OmegaConf.load(CONF / "model" / f"{name}.yaml")
    arguments = {**OmegaConf.to_container(file), **_SMALL.get(name, {}), **more}
    network = instantiate(arguments, _convert_="all")
    image, target = _batch(arguments["in_channels"], *_SIZES.get(name, (36, 36)))
    with torch.no_grad():
        logits = network.eval()(image)
    height, width = logits.shape[-2:]
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    target = target[:, top : top + height, left : left + width]
    loss = instantiate(OmegaConf.load(CONF / "loss" / "bce_dice.yaml"), _convert_="all")
    optimizer = torch.optim.SGD(network.train().parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        value = loss(network(image), target)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    state = network.state_dict()
    return {
        "exact": {"logits": list(logits.shape), "numbers in the weights": sum(v.numel() for v in state.values())},
        "close": {"logits": sample(logits.numpy()), "losses": losses},
        "bytes": {"logits": digest({"": logits.numpy()}), "weights": digest({k: v.numpy() for k, v in state.items()})},
    }


def _batch(channels: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns images (2, C, H, W) of noise and targets (2, H, W) int64 of 0, 1 and a few pixels without label (255)."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, channels, height, width)).astype(np.float32)
    target = (image.mean(1) > 0.5).astype(np.int64)
    target[:, :2, :3] = 255
    return torch.from_numpy(image), torch.from_numpy(target)


def predictions(folder: Path) -> dict[str, Any]:
    """Returns what `predict` writes for a well, for a folder of patches and for a picture, by the models of the old runs."""
    np.save(folder / "well.npy", values_of())
    patch_folder(folder / "patches", range(10))
    picture = save_picture(folder / "picture.png")
    wells, pictures = (RUNS / kind / "model.safetensors" for kind in ("wells", "pictures"))
    cases: dict[str, tuple[Path, str, list[str]]] = {
        "well": (wells, "well.npy", []),
        "well, rolls": (wells, "well.npy", ["tta=rolls", "postprocess=clean", "band=40"]),
        "patches": (wells, "patches", ["save=[mask,probability,submission]"]),
        "picture": (pictures, "picture.png", ["save=[mask,probability,submission]"]),
        "picture, flips": (pictures, "picture.png", ["tta=flips"]),
    }
    found: dict[str, Any] = {}
    for number, (case, (model, given, more)) in enumerate(cases.items()):
        out = folder / f"out{number}"
        run("predict", f"artifact={model}", f"input={folder / given}", f"output={out}", *more)
        found[case] = {"exact": {}, "close": {}, "bytes": _written(out)}
        found[case]["exact"]["files"] = sorted(found[case]["bytes"])
    for case, model, given in (("well", wells, values_of()), ("picture", pictures, picture)):
        found[case]["close"]["probability"] = sample(np.asarray(wellseg.load(str(model))(given)))
    return found


def _written(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every mask, probability and submission below `folder`, by name."""
    results = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".npy", ".png", ".csv")):
        results[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return results


_FIRST = ("int4", "int8", "int8_static")
"""Schemes that the fast tests quantize by; the others share most of their code."""


def quantized(folder: Path) -> dict[str, Any]:
    """Returns the stored weights of a model file for each of the first schemes; fine-tuning takes three steps at most."""
    return _quantized(folder, _FIRST)


def quantized_further(folder: Path) -> dict[str, Any]:
    """Returns the stored weights of a model file for each further scheme of conf/quant."""
    return _quantized(
        folder, [p.stem for p in sorted((CONF / "quant").glob("*.yaml")) if p.stem not in (*_FIRST, "none")]
    )


def _quantized(folder: Path, schemes: Sequence[str]) -> dict[str, Any]:
    found = {}
    for name in schemes:
        settings = ["quant.max_dice_drop=null", "quant.calibration_windows=16"]  # no gate: one try each
        if OmegaConf.load(CONF / "quant" / f"{name}.yaml").get("finetune_steps"):  # a scheme of its own, or of int4
            settings.append("quant.finetune_steps=3")
        if name == "mixed":
            settings.append("quant.max_bytes=2600")
        out = folder / name
        model = RUNS / "wells" / "model.safetensors"
        run("quantize", f"artifact={model}", f"quant={name}", *settings, "test=false", f"hydra.run.dir={out}")
        found[name] = _stored(next(p for p in sorted(out.glob("model.*"))))
    return found


def exports(folder: Path) -> dict[str, Any]:
    """Returns the weights and the answers of the ONNX files of the old runs' models, computed by onnxruntime."""
    given = {"wells": values_of(), "pictures": save_picture(folder / "picture.png")}
    found = {}
    for kind, values in given.items():
        out = folder / kind
        run("export", f"artifact={RUNS / kind / 'model.safetensors'}", "parity=false", f"output={out}")
        probability = np.asarray(wellseg.load(str(out / "model.onnx"))(values))
        found[kind] = _stored(out / "model.onnx")
        found[kind]["close"]["probability"] = sample(probability)
        found[kind]["bytes"]["probability"] = digest({"": probability})
    return found


def _stored(path: Path) -> dict[str, Any]:
    """Returns kinds, shapes and SHA-256 of the arrays of a model file, without the times and versions beside them."""
    if path.suffix == ".onnx":
        model = onnx.load(path)
        values = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
        # The exporter names what it makes itself by a counter, so that arrays are told apart by what they hold.
        arrays = {str(k): v for k, v in enumerate(sorted(values, key=lambda v: (v.dtype.str, v.shape, v.tobytes())))}
    else:
        arrays = load_file(path)
    # The length of ".packed" depends on the codes where they are compressed, and so on the last bit of a weight.
    shapes = {k: "" if k == ".packed" else v.shape for k, v in arrays.items()}
    kinds = sorted(f"{'' if path.suffix == '.onnx' else k} {v.dtype} {shapes[k]}".strip() for k, v in arrays.items())
    return {"exact": {"arrays": kinds}, "close": {}, "bytes": {"arrays": digest(arrays)}}


def scores(folder: Path) -> dict[str, Any]:
    """Returns metrics.json and the weights of a tiny run on wells and of one on pictures."""
    settings = {"wells": TINY, "pictures": [*_PICTURES, f"data.root={folder / 'set'}"]}
    found = {}
    for kind, tiny in settings.items():
        run("train", *tiny, *_STEPS, f"hydra.run.dir={folder / kind}")
        metrics = json.loads((folder / kind / "metrics.json").read_text(encoding="utf-8"))
        flat = dict(_flat(metrics))
        close = {k: v for k, v in flat.items() if isinstance(v, float)}
        weights = load_file(folder / kind / "model.safetensors")
        found[kind] = {
            "exact": {k: v for k, v in flat.items() if k not in close and not k.startswith("confusion")},
            "close": close | {f"weights {k}": sample(v, 2) for k, v in weights.items() if v.dtype.kind == "f"},
            "bytes": {"metrics": hashlib.sha256(json.dumps(metrics, sort_keys=True).encode()).hexdigest()}
            | {"weights": digest(weights)},
        }
    return found


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


GROUPS: dict[str, Callable[[Path], dict[str, Any]]] = {
    f.__name__: f for f in (networks, predictions, quantized, quantized_further, exports, scores)
}


def run(name: str, *arguments: str) -> None:
    """Runs a command in this process. Raises AssertionError with its output where the command fails."""
    done = command(name, *arguments)
    assert done.returncode == 0, f"{name} {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}"


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 of names, kinds, shapes and bytes of all arrays, in the order of their names."""
    total = hashlib.sha256()
    for key, value in sorted(arrays.items()):
        total.update(f"{key} {value.dtype} {value.shape};".encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def sample(values: np.ndarray, count: int = 8) -> list[float | None]:
    """Returns `count` values, evenly spread over the flat array; None stands for NaN."""
    flat = np.asarray(values, dtype=np.float64).reshape(-1)
    chosen = flat[np.linspace(0, flat.size - 1, min(count, flat.size)).astype(int)]
    return [None if np.isnan(v) else float(v) for v in chosen]


def record(group: str, folder: Path) -> dict[str, Any]:
    """Returns what a golden file holds: the environment and the cases of `group`, measured in the empty `folder`."""
    folder.mkdir(parents=True)
    with steady():
        cases = GROUPS[group](folder)
    return json.loads(json.dumps({"environment": environment(), "cases": cases}))


def stored(group: str) -> dict[str, Any]:
    """Returns the recorded golden file of `group`."""
    return json.loads((GOLDEN / f"{group}.json").read_text(encoding="utf-8"))


if "torch" in sys.modules and os.environ.get("OMP_NUM_THREADS") != "1":
    raise RuntimeError("OMP_NUM_THREADS must be 1 before torch is imported: sums of more threads have another order")
