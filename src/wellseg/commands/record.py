"""The record of a command in its output folder: what was composed, and from which overrides."""

from pathlib import Path

from omegaconf import OmegaConf

from wellseg.config import Composed
from wellseg.files import write_bytes
from wellseg.overrides import for_another_process


def record(composed: Composed, folder: Path) -> None:
    """Writes config.yaml, overrides.yaml and hydra.yaml into `folder`.

    Hydra would write them before the run knows whether the folder is another run's.
    """
    for name, node in (
        ("config", composed.cfg),
        ("overrides", OmegaConf.create(for_another_process(composed.overrides, composed.all_overrides))),
        ("hydra", OmegaConf.create({"hydra": composed.hydra})),
    ):
        write_bytes(folder / f"{name}.yaml", OmegaConf.to_yaml(node).encode())
