import numpy as np
import pytest
from corroseg_wells import make_well

from wellseg.data.datasets.corroseg.files import patches_of
from wellseg.data.wells.layout import Evidence, detect


def patches(num: int, *, paired: bool, seed: int = 0) -> dict[int, np.ndarray]:
    well = make_well("well_1", num, paired=paired, seed=seed)
    return {k: np.where(values < -900, np.nan, values) for k, values, _ in patches_of(well)}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("paired", [True, False])
def test_the_layout_is_found(paired: bool, seed: int) -> None:
    evidence = detect(patches(10, paired=paired, seed=seed))
    assert evidence.paired is paired
    assert not evidence.ambiguous


@pytest.mark.parametrize("paired", [True, False])
def test_the_layout_is_found_through_gaps_and_nulls(paired: bool) -> None:
    cut = patches(24, paired=paired)
    rng = np.random.default_rng(1)
    for k in list(cut):
        cut[k] = np.where(rng.random((36, 36)) < 0.1, np.nan, cut[k])
        cut[k][rng.integers(36)] = np.nan
    for k in (0, 5, 8, 9, 13):
        del cut[k]
    cut[2][:] = np.nan
    assert detect(cut).paired is paired


def test_a_common_groove_does_not_make_twins() -> None:
    """Columns that are alike over the whole well must not look like pairs."""
    groove = np.sin(np.arange(36) / 3).astype(np.float32)
    cut = {k: v + 5 * groove for k, v in patches(10, paired=False).items()}
    assert not detect(cut).paired


@pytest.mark.parametrize("cut", [{}, {0: np.zeros((36, 36))}, {0: np.full((36, 36), np.nan), 1: np.zeros((36, 36))}])
def test_without_evidence_a_well_is_single(cut: dict[int, np.ndarray]) -> None:
    evidence = detect(cut)
    assert not evidence.paired
    assert not evidence.ambiguous


def test_contradicting_evidence_is_ambiguous() -> None:
    assert Evidence(0.9, -1.0, 0.0).ambiguous
    assert not Evidence(0.9, 1.0, 1.0).ambiguous
    assert not Evidence(0.0, float("nan"), 0.0).ambiguous
