"""Private API of Hydra, Lightning and torch is used in one file, and does what wellseg takes it to do."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from places import SOURCE
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from wellseg.private_api import (
    cpu_computes_bfloat16,
    hydra_callbacks,
    is_compiled,
    is_last_batch_of_epoch,
    launched_processes,
)

PRIVATE = re.compile(
    r"\bhydra\._internal|_compiled_call_impl|\.batch_progress\b|launcher, \"procs\"|launcher\.procs"
    r"|\b(torch|omegaconf|pytorch_lightning|lightning_fabric)(\.\w+)*\._[a-z]\w*"
)
"""What upstream calls private, or does not document."""


def test_no_other_file_uses_private_api():
    users = {path.name for path in SOURCE.rglob("*.py") if PRIVATE.search(path.read_text(encoding="utf-8"))}
    assert users == {"private_api.py"}


def test_hydras_callbacks_are_made_and_called(monkeypatch):
    calls = []

    class Listener:
        def on_job_start(self, config, **_):
            calls.append(config.seed)

    module = ModuleType("listening")
    module.Listener = Listener
    monkeypatch.setitem(sys.modules, "listening", module)
    cfg = OmegaConf.create({"seed": 3, "hydra": {"callbacks": {"mine": {"_target_": "listening.Listener"}}}})
    hydra_callbacks(cfg).on_job_start(config=cfg, task_function=print)
    assert calls == [3]


def test_a_network_is_known_to_be_compiled():
    network = nn.Conv2d(1, 1, 1)
    assert is_compiled(network) is False
    network.compile(backend="eager")
    assert is_compiled(network) is True


class Task(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = nn.Linear(1, 1)

    def training_step(self, batch, number):
        return self.network(batch[0]).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*treespec")
def test_the_last_batch_of_an_epoch_is_known_at_its_end(tmp_path):
    seen = []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            seen.append((is_last_batch_of_epoch(trainer), launched_processes(trainer)))

    trainer = pl.Trainer(
        max_epochs=2, callbacks=[Look()], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Task(), DataLoader(TensorDataset(torch.zeros(6, 1)), batch_size=2))
    assert seen == [(last, []) for last in (False, False, True) * 2]


def test_lightning_keeps_the_processes_that_it_starts():
    from lightning_fabric.plugins.environments import LightningEnvironment
    from pytorch_lightning.strategies import DDPStrategy
    from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

    strategy = DDPStrategy(cluster_environment=LightningEnvironment())
    strategy._launcher = launcher = _SubprocessScriptLauncher(strategy.cluster_environment, 2, 1)
    process = subprocess.Popen([sys.executable, "-c", ""])
    launcher.procs.append(process)
    process.wait()
    trainer = type("Trainer", (), {"strategy": strategy})()
    assert launched_processes(trainer) is launcher.procs


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="the processor's own list of instructions is Linux's")
def test_the_instructions_of_the_processor_are_known():
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    assert cpu_computes_bfloat16() is ("avx512_bf16" in flags.split())
