"""Checkpoints of one's own run, for resuming: written atomically, read as plain types or not at all."""

import io
import logging
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from wellseg.errors import ArtifactError
from wellseg.files import write_bytes

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, whole or untouched at any moment, loaded with `weights_only=True`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes a checkpoint atomically."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_bytes(Path(path), buffer.getvalue())

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Reads a checkpoint as `read` does."""
        return read(Path(path))


def read(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint, on the CPU. Raises ArtifactError when it is missing, damaged or holds code."""
    if not path.is_file():
        raise ArtifactError("no such checkpoint", where=str(path), fix="check ckpt_path=...")
    fix = "ckpt_path=auto takes the newest undamaged checkpoint of the run folder"
    try:
        # torch does not compare the checksums of the archive, so a flipped bit would go unnoticed.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # a damaged archive makes zipfile raise what it likes
        raise ArtifactError(
            f"{path.name} is not a whole checkpoint", where=str(path), why=str(error), fix=fix
        ) from error
    if damaged is not None:
        raise ArtifactError(f"{path.name} is damaged", where=str(path), why=f"bad checksum of {damaged}", fix=fix)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ArtifactError(
            f"{path.name} is not a checkpoint of plain types",
            where=str(path),
            why=str(error).splitlines()[0],
            fix="only checkpoints that wellseg wrote are loaded; nothing in the file was executed",
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ArtifactError(f"{path.name} is not a Lightning checkpoint", where=str(path), fix=fix)
    return checkpoint


def newest_good(folder: Path) -> Path | None:
    """last.ckpt of a run's checkpoint folder, or best.ckpt when that is damaged (which is logged), or None for a new run."""
    for name in ("last.ckpt", "best.ckpt"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            read(path)
        except ArtifactError as error:
            log.warning("%s", error)
            continue
        log.info("resuming from %s", path)
        return path
    return None
