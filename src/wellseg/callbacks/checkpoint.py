"""Finds the checkpoint files of a run folder again after the folder was moved."""

from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import ModelCheckpoint


class RunCheckpoint(ModelCheckpoint):
    """Resumes ModelCheckpoint in a run folder that has moved.

    Lightning forgets the best score where the path has changed, and the next epoch would replace a better best.ckpt.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state with all paths in the present folder."""
        state = {**state_dict, "dirpath": self.dirpath}
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[key] = self._here(state[key])
        state["best_k_models"] = {self._here(path): score for path, score in state["best_k_models"].items()}
        super().load_state_dict(state)

    def _here(self, path: str) -> str:
        assert self.dirpath is not None, "Lightning resolves the folder before it restores the state"
        return str(Path(self.dirpath) / Path(path).name) if path else path
