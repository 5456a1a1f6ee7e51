"""Times a training step."""

import time

import torch

from wellseg.losses.bce_dice import bce_dice

ROWS = 128 * 36
"""Rows of 36 columns in a step: 128 windows of 36 rows, or as many as make them up."""


def step_seconds(network: torch.nn.Module, window: int = 36) -> float:
    """Processor seconds of a training step per ROWS rows, in whole windows of `window` rows, bf16, channels last, one core."""
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.0)
    number = round(ROWS / window)
    image = torch.randn(number, 1, window, 36, generator=torch.Generator().manual_seed(0))
    target = (image[:, 0] > 1.5).to(torch.uint8)
    started = time.process_time()
    with torch.autocast("cpu", torch.bfloat16):
        loss = bce_dice(network(image.contiguous(memory_format=torch.channels_last)), target)
    loss.backward()
    optimizer.step()
    network.zero_grad(set_to_none=True)
    network.eval()
    return (time.process_time() - started) * ROWS / (number * window)
