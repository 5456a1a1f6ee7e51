"""Overrides that show each experiment on images in minutes, on its fake set and two cores."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """How an experiment is shown on its fake set on two cores: overrides that make it small, and minutes that it takes."""

    overrides: tuple[str, ...]
    minutes: float


RUNS: dict[str, Run] = {
    "airbus_1": Run(
        ("data.fake_images=600", "data.fake_size=[96,96]", "data.resize=[96,96]", "batch_size=8", "optimizer.lr=2e-3",
         "scheduler=one_cycle", "trainer.max_epochs=20"), 15,
    ),
    "stanford": Run(
        ("data.fake_size=[144,144]", "data.resize=[96,96]", "augment=image_affine", "model.base=16", "batch_size=4",
         "optimizer.lr=2e-3", "scheduler=one_cycle", "trainer.max_epochs=24"), 3,
    ),
    "carvana": Run(
        ("data.fake_size=[320,480]", "data.resize=[220,220]", "model.base=8", "model.blocks=3", "batch_size=2",
         "data.shares=[0.7,0.15,0.15]", "trainer.max_epochs=14"), 4,
    ),
    "carvana_1024": Run(
        ("data.fake_size=[320,480]", "data.resize=[128,128]", "model.channels=[8,16,24,32,48]", "optimizer.lr=2e-3",
         "data.shares=[0.7,0.15,0.15]", "trainer.max_epochs=12"), 2,
    ),
    "echocem": Run(("model.base=8", "batch_size=4", "optimizer.lr=5e-3", "trainer.max_epochs=15"), 2),
}  # fmt: skip
"""Everything that is not here is the experiment's own."""
