import numpy as np
import pytest

from wellseg.data.split import fold_groups, split_original, split_shuffle, split_wells
from wellseg.data.wells.well import Well
from wellseg.errors import ConfigError


def well(name, rows, group="", split=""):
    return Well.from_raw(name, np.zeros((rows, 4), np.float32), group=group, split=split)


WELLS = [well(f"w{i}", 50 + 10 * i) for i in range(8)] + [well("p.0", 90, "p"), well("p.1", 90, "p")]


def test_over_the_folds_every_well_is_tested_once_and_twins_stay_together():
    tested = []
    for fold in range(4):
        parts = dict(zip([w.name for w in WELLS], split_wells(WELLS, 4, fold), strict=True))
        assert parts["p.0"] == parts["p.1"]
        assert set(parts.values()) == {"train", "validation", "test"}
        tested += [n for n, p in parts.items() if p == "test"]
    assert sorted(tested) == sorted(w.name for w in WELLS)


def test_folds_do_not_depend_on_order_and_are_balanced():
    rows = {f"w{i}": 100 + 7 * i for i in range(11)}
    folds = fold_groups(rows, 3)
    assert folds == fold_groups(dict(reversed(rows.items())), 3)
    depths = [sum(rows[g] for g in fold) for fold in folds]
    assert max(depths) - min(depths) <= max(rows.values())


@pytest.mark.parametrize(
    ("folds", "fold", "text"),
    [(2, 0, "num_folds=2"), (4, 4, "fold=4"), (4, -1, "fold=-1"), (20, 0, "wells are too few for 20 folds")],
)
def test_impossible_folds_are_refused(folds, fold, text):
    with pytest.raises(ConfigError, match=text):
        split_wells(WELLS, folds, fold)


def test_original_needs_marks():
    marked = [well("a", 40, split="train"), well("b", 40, split="validation")]
    assert split_original(marked) == ["train", "validation"]
    with pytest.raises(ConfigError, match="no well is marked as train"):
        split_original(WELLS)


def test_shuffle_deals_every_window_once_and_depends_on_the_seed():
    parts = split_shuffle(1000, 0)
    assert sorted(np.concatenate(parts)) == list(range(1000))
    assert [len(p) for p in parts] == [700, 150, 150]
    assert parts[0].tolist() != split_shuffle(1000, 1)[0].tolist()
