"""A root of Stanford 2D-3D-S that is to be read, and what is in it."""

import json
from pathlib import Path

from wellseg.data.datasets.stanford2d3d.labels import FILE
from wellseg.data.datasets.stanford2d3d.module import Stanford2D3DDataModule

SIZE = (48, 64)
SPLIT = {"train_areas": [1, 2, 3, 4], "validation_areas": [6], "test_areas": ["5a", "5b"], "split": "original"}


def module(root: Path | None, **settings) -> Stanford2D3DDataModule:
    return Stanford2D3DDataModule(root=root, **{**SPLIT, **settings})


def pictures(root: Path, area: str = "1", kind: str = "rgb") -> list[Path]:
    return sorted((root / f"area_{area}" / "data" / kind).iterdir())


def labels(root: Path) -> list[str]:
    return json.loads((root / FILE).read_text())


def number(pixel) -> int:
    """Of a colour: its hexadecimal digits, as the published description has it."""
    return int("".join(f"{int(byte):02x}" for byte in pixel), 16)
