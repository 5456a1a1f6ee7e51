"""Fine-tunes a simulated integer network towards the outputs of the full-precision network, without labels."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wellseg.quant.simulation import Simulation, distance

SPREAD_RATE = 30
"""Learning rate of `spread` relative to weights: logarithms change by hundredths, weights by thousandths of the largest."""


def finetune(
    simulation: Simulation,
    network: nn.Module,
    inputs: Sequence[Tensor],
    threshold: float,
    *,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
) -> list[float]:
    """Trains all weights of `simulation`, all roundings on, towards the logits of `network`; returns the loss per step.

    Each step takes `batch` windows of one of `inputs`, circularly shifted by a random number of columns. Adam's rate falls
    from `lr` to 0 along half a cosine, SPREAD_RATE times that for the ranges of the channels, which are learnt as well (the
    gradient of a scale passes through the rounding, as in Esser et al. 2020, arXiv:1902.08153).
    """
    simulation.round_all()
    tuned = simulation.network
    spreads = [p for name, p in tuned.named_parameters() if name.endswith("spread") and p.requires_grad]
    ranges = set(spreads)
    weights = [p for p in tuned.parameters() if p not in ranges and p.requires_grad]
    groups: list[dict[str, object]] = [{"params": weights}, {"params": spreads, "lr": SPREAD_RATE * lr}]
    optimizer = torch.optim.Adam(groups, lr=lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 0.5 * (1 + math.cos(math.pi * n / steps)))
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([float(len(x)) for x in inputs])
    losses: list[float] = []
    with torch.enable_grad():
        for _ in range(steps):
            windows = inputs[int(torch.multinomial(sizes, 1, generator=generator))]
            chosen = torch.randperm(len(windows), generator=generator)[:batch]
            shift = int(torch.randint(windows.shape[-1], (1,), generator=generator))
            x = windows[chosen.to(windows.device)].roll(shift, -1)
            with torch.no_grad():
                wanted = network(x)
            loss = distance(tuned(x), wanted, threshold)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            scheduler.step()
            losses.append(float(loss.detach()))
    simulation.settle()
    return losses
