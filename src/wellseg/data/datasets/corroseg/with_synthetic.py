"""Adds synthetic wells with exact labels to the training wells of CorroSeg."""

from typing import Any

from wellseg.data.datasets.corroseg.module import CorroSegDataModule
from wellseg.data.datasets.synthetic.module import check_level, check_sizes, generate_well, well_generator
from wellseg.data.wells.well import Well
from wellseg.errors import ConfigError

NUM_COLUMNS = 36
"""Columns of a synthetic well: the width of the challenge's patches."""


class CorroSegSyntheticDataModule(CorroSegDataModule):
    """Serves windows of the challenge's wells, and of synthetic wells in training only.

    Synthetic wells count as training wells of the challenge, for normalisation too; the rest is as in
    CorroSegDataModule.

    synthetic_wells  number of synthetic wells; well i does not depend on the number
    synthetic_level  a name of wellseg.data.datasets.synthetic.module.LEVELS
    rows_per_well    depth rows of each
    wells_seed       seed of the synthetic wells; separate from `seed`, as in SyntheticDataModule
    Raises ConfigError for values out of range, and for split=shuffle, which assigns windows regardless of wells.
    """

    def __init__(
        self,
        *,
        synthetic_wells: int = 77,
        synthetic_level: str = "hard",
        rows_per_well: int = 1800,
        wells_seed: int = 0,
        **challenge: Any,
    ) -> None:
        super().__init__(**challenge)
        if self.split == "shuffle":
            raise ConfigError(
                "data.split=shuffle with synthetic wells",
                why="split=shuffle assigns windows at random, so that synthetic wells would be scored",
                fix="data.split=wells, or data=corroseg",
            )
        check_level(synthetic_level, "synthetic_level")
        check_sizes(synthetic_wells=(synthetic_wells, 1), rows_per_well=(rows_per_well, 1), wells_seed=(wells_seed, 0))
        self.synthetic_wells, self.synthetic_level = synthetic_wells, synthetic_level
        self.rows_per_well, self.wells_seed = rows_per_well, wells_seed

    def training_extras(self) -> list[Well]:
        """Returns the synthetic wells."""
        return [
            generate_well(
                well_generator(self.wells_seed, number),
                level=self.synthetic_level,
                num_rows=self.rows_per_well,
                num_columns=NUM_COLUMNS,
                name=f"synthetic_{number}",
            )
            for number in range(self.synthetic_wells)
        ]
