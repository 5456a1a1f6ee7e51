"""The only file that uses private API of Hydra, Lightning and torch; `tests/test_private_api.py` fails when one changes.

Each function says which public call is missing. Imports are lazy, so that importing this module costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess

    import pytorch_lightning as pl
    from omegaconf import DictConfig
    from torch import nn


def hydra_callbacks(cfg: "DictConfig") -> Any:
    """Returns the callbacks of `hydra.callbacks`, which `hydra.core.utils.run_job` asks for.

    Hydra's `HydraContext` is public, but the class that one of its two fields takes is not.
    """
    from hydra._internal.callbacks import Callbacks

    return Callbacks(cfg)


def is_compiled(network: "nn.Module") -> bool:
    """Returns whether `network.compile()` was called.

    torch replaces the call of a module in place and offers no question about it; `torch.compiler.is_compiling` is about
    tracing, and `isinstance(network, OptimizedModule)` holds for `torch.compile(network)` only.
    """
    return network._compiled_call_impl is not None


def is_last_batch_of_epoch(trainer: "pl.Trainer") -> bool:
    """Returns whether the training batch that ends now is the last one of its epoch.

    Lightning has no public question for it: `trainer.num_training_batches` counts a whole epoch, also where a run resumes
    in the middle of one, and is infinite for a loader without a length.
    """
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def launched_processes(trainer: "pl.Trainer") -> "list[subprocess.Popen[bytes]]":
    """Returns the list of further processes that Lightning started for this run (trainer=ddp), empty without any.

    It is the list that Lightning's watching thread reads: clearing it stops the thread from killing this process. The
    strategy's public methods end all processes, this one included.
    """
    return getattr(trainer.strategy.launcher, "procs", [])


def cpu_computes_bfloat16() -> bool:
    """Returns whether the processor multiplies bfloat16 itself; elsewhere it is emulated, slower than float32.

    `torch.backends.cpu.get_cpu_capability()` names AVX512 for processors with and without these instructions.
    """
    import torch

    return torch.cpu._is_avx512_bf16_supported()
