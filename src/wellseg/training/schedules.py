"""Learning-rate schedules in the form that Lightning takes: functions (optimizer, total_steps) -> its scheduler record."""

from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR, ReduceLROnPlateau, SequentialLR


def plateau(
    optimizer: Optimizer,
    total_steps: int,
    *,
    factor: float = 0.8,
    patience: int = 5,
    monitor: str = "val/loss",
    mode: Literal["min", "max"] = "min",
    min_lr: float = 0.0,
) -> dict[str, Any]:
    """Multiply the rate by `factor` once `monitor` has not improved for more than `patience` epochs."""
    del total_steps
    scheduler = ReduceLROnPlateau(optimizer, mode=mode, factor=factor, patience=patience, min_lr=min_lr)
    # wellseg.callbacks.plateau steps it; Lightning need not insist on the score in epochs without validation.
    return {"scheduler": scheduler, "interval": "epoch", "monitor": monitor, "strict": False}


def cosine(
    optimizer: Optimizer, total_steps: int, *, warmup: float = 0.05, final: float = 0.0, start: float = 0.01
) -> dict[str, Any]:
    """Linear warm-up over the share `warmup` of all steps from `start` times the rate, then half a cosine down to `final`.

    `final` is an absolute rate. Source of the shape: Loshchilov and Hutter 2017 (arXiv:1608.03983), without restarts.
    """
    warm = min(max(round(warmup * total_steps), 0), total_steps - 1)
    down = CosineAnnealingLR(optimizer, T_max=max(total_steps - warm, 1), eta_min=final)
    if warm == 0:
        return {"scheduler": down, "interval": "step"}
    up = LinearLR(optimizer, start_factor=start, total_iters=warm)
    return {"scheduler": SequentialLR(optimizer, [up, down], milestones=[warm]), "interval": "step"}


def one_cycle(
    optimizer: Optimizer, total_steps: int, *, rise: float = 0.3, start_divisor: float = 25.0, end_divisor: float = 1e4
) -> dict[str, Any]:
    """Up to the optimizer's rate over the share `rise` of all steps, then down (Smith and Topin, arXiv:1708.07120)."""
    peak = [group["lr"] for group in optimizer.param_groups]
    scheduler = OneCycleLR(
        optimizer,
        max_lr=peak,
        total_steps=total_steps,
        pct_start=rise,
        div_factor=start_divisor,
        final_div_factor=end_divisor,
        # Cycling the momentum would overwrite Adam's betas; the rate alone is what is asked for.
        cycle_momentum=False,
    )
    return {"scheduler": scheduler, "interval": "step"}
