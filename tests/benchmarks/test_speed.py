"""Checks that the baseline of benchmarks/speed is the course's computation: its batches, and its network."""

from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.common import pipeline
from benchmarks.speed import inference, steps


def test_course_batches_are_rolled_and_flipped_windows():
    (well,) = pipeline.make_wells(1, rows=36 * 12)
    seen = set()
    for batch in islice(steps.Batches([well], 4).of(steps.PER_SAMPLE), 6):
        for image, target, number in zip(batch.image[:, 0].numpy(), batch.target.numpy(), batch.index, strict=True):
            rows = slice(36 * int(number), 36 * int(number) + 36)
            values = np.where(well.valid, well.values, 0)[rows]
            ways = [
                (roll, mirrored, upside_down)
                for roll in range(36)
                for mirrored in (1, -1)
                for upside_down in (1, -1)
                if np.array_equal(image, np.roll(values, roll, 1)[::upside_down, ::mirrored])
                and np.array_equal(target, np.roll(well.target[rows], roll, 1)[::upside_down, ::mirrored])
            ]
            assert ways, f"window {int(number)} is not one of the well's, rolled and flipped with its labels"
            seen.update(ways)
    assert len({roll for roll, *_ in seen}) > 5
    assert {way[1:] for way in seen} == {(1, 1), (1, -1), (-1, 1), (-1, -1)}


def test_course_network_is_the_published_student():
    network = inference.network(["experiment=exp2001"])
    weights = network.state_dict()
    assert sum(w.numel() for w in weights.values()) == 576_721
    x = torch.randn(2, 1, 36, 36, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network(x), student(x, weights), atol=1e-5, rtol=1e-5)


def student(x, weights):
    """The student as the course describes it, written out: three turns and two pixels on every side, edges repeated before
    every convolution, corners aligned, the middle turn cut out.
    """

    def stage(x, name, depth):
        for i in range(depth):
            key = f"{name}.{i}.conv"
            x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weights[f"{key}.weight"], weights[f"{key}.bias"])
            x = F.leaky_relu(x, 0.01)
        return x

    x = F.pad(x.repeat(1, 1, 1, 3), (2, 2, 2, 2), mode="replicate")
    skips = []
    for scale, depth in enumerate((2, 1, 1)):
        x = stage(x, f"encoders.{scale}", depth)
        skips.append(x)
        x = x[:, :, ::2, ::2]
    x = stage(x, "bottleneck", 1)
    for place, depth in enumerate((2, 1, 1)):
        skip = skips.pop()
        x = F.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=True)
        x = stage(torch.cat([x, skip], 1), f"decoders.{place}", depth)
    x = F.conv2d(x, weights["refinement.0.weight"], weights["refinement.0.bias"])
    return x[:, :, 2:38, 38:74]


@pytest.mark.parametrize("loader", ["PER_SAMPLE", "WINDOWS"])
def test_a_step_trains(loader):
    """What is timed is a whole step: Adam's first one moves a weight with a gradient by the rate, whatever the gradient."""
    batches = steps.Batches(pipeline.make_wells(1, rows=36 * 12), 4)
    stepper = steps.Stepper(steps.Variant(("model=micro", "optimizer.lr=0.01"), getattr(steps, loader)), batches)
    stepper.build()
    before = [p.detach().clone() for p in stepper.task.network.parameters()]
    stepper.step()
    for old, new in zip(before, stepper.task.network.parameters(), strict=True):
        assert float((old - new.detach()).abs().max()) == pytest.approx(0.01, rel=1e-2)
