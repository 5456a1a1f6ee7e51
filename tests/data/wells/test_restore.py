import numpy as np
import pytest
from corroseg_wells import REAL, make_well

from wellseg.data.datasets.corroseg.files import patches_of
from wellseg.data.wells.findings import restoration_problems
from wellseg.data.wells.patches import PatchedWell, PatchFile
from wellseg.data.wells.restore import restore_well
from wellseg.data.wells.well import Well
from wellseg.errors import ConfigError, DataError
from wellseg.types import IGNORE

PAIRED = {1, 2, 5, 6, 7, 8, 9, 10}


def cut(well: Well, leave_out: tuple[int, ...] = ()) -> PatchedWell:
    patched = PatchedWell(well.name, labels=None if well.target is None else {})
    for k, values, mask in patches_of(well):
        if k not in leave_out:
            patched.add(PatchFile(1, k, f"{well.name}_patch_{k}.npy"), values, "train", mask)
    return patched


def assert_windows_are_patches(wells: tuple[Well, ...], patched: PatchedWell) -> None:
    """Windows of 36 rows, stride 36, of the restored wells are the patches bit by bit, with their labels and names."""
    views = [v for w in wells for v in w.views()]
    for k, raw in patched.values.items():
        view = views[k % len(views)]
        block = k // len(views)
        rows = slice(36 * block, 36 * block + 36)
        valid = view.valid[rows]
        np.testing.assert_array_equal(view.values[rows][valid].view(np.uint32), raw[valid].view(np.uint32))
        np.testing.assert_array_equal(valid, np.isfinite(raw) & (raw > -900))
        assert np.isnan(view.values[rows][~valid]).all()
        assert view.patch_names[block, 0] == patched.names[k]
        if patched.labels is not None:
            np.testing.assert_array_equal(view.target[rows], np.where(valid, patched.labels[k], IGNORE))


@pytest.mark.parametrize(
    ("paired", "layout", "kinds", "width"),
    [
        (False, "auto", ["single"], 36),
        (False, "views", ["single"], 36),
        (False, "interleaved", ["single"], 36),
        (True, "auto", ["interleaved"], 72),
        (True, "interleaved", ["interleaved"], 72),
        (True, "views", ["view", "view"], 36),
        (True, "single", ["single"], 36),
    ],
)
def test_windows_of_restored_wells_are_the_patches(paired: bool, layout: str, kinds: list[str], width: int) -> None:
    patched = cut(make_well("well_1", 12, paired=paired))
    patched.values[3] = patched.values[3].copy()
    patched.values[3][4:6, 7:9] = [[-999.25, -999.0], [-9999.0, np.nan]]
    patched.values[4] = np.where(np.eye(36), np.float32(np.inf), patched.values[4])
    wells = restore_well(patched, azimuth_layout=layout).wells
    assert [w.azimuth_layout for w in wells] == kinds
    assert {w.num_columns for w in wells} == {width}
    assert {w.group for w in wells} == {"well_1"}
    assert_windows_are_patches(wells, patched)


def test_interleaving_gives_the_pipe_back() -> None:
    pipe = make_well("well_1", 12, paired=True)
    (well,) = restore_well(cut(pipe)).wells
    np.testing.assert_array_equal(well.values, pipe.values)
    np.testing.assert_array_equal(well.target, pipe.target)
    np.testing.assert_array_equal(well.depth, np.arange(216))
    assert well.split == "train"


def test_null_codes_are_counted_per_code_and_file() -> None:
    patched = cut(make_well("well_1", 6))
    for k, codes in {0: [-999.25, -999.25, np.nan], 5: [-9999.25, np.inf, -np.inf, -999.0]}.items():
        patched.values[k] = patched.values[k].copy()
        patched.values[k][0, : len(codes)] = codes
    restored = restore_well(patched)
    assert restored.nulls == {0: 3, 5: 4}
    assert restored.wells[0].null_counts == {"-999.25": 2, "-9999.25": 1, "-999.0": 1, "nan": 1, "inf": 2}
    (note,) = (p for p in restoration_problems([restored]) if p.fault == 8)
    assert "7 pixels without data in 2 patches" in note.what
    assert note.where == "well_1_patch_0: 3, well_1_patch_5: 4"


@pytest.mark.parametrize(
    ("paired", "gone", "gap"),
    [(False, (2,), (72, 108)), (True, (2, 3), (36, 72)), (False, (0,), (0, 36))],
)
def test_a_missing_patch_leaves_null_rows_at_the_right_depth(paired: bool, gone: tuple[int, ...], gap) -> None:
    pipe = make_well("well_1", 12, paired=paired)
    restored = restore_well(cut(pipe, gone))
    (well,) = restored.wells
    assert well.values.shape == pipe.values.shape
    inside = np.zeros(well.num_rows, dtype=bool)
    inside[slice(*gap)] = True
    assert not well.valid[inside].any()
    assert (well.target[inside] == IGNORE).all()
    np.testing.assert_array_equal(well.values[~inside], pipe.values[~inside])
    np.testing.assert_array_equal(well.depth, pipe.depth)
    assert well.null_counts == {}
    assert restored.missing == gone
    (warning,) = (p for p in restoration_problems([restored]) if p.severity == "warning")
    assert warning.fault == 10
    assert f"well_1_patch_{gone[0]}" in warning.where


def test_a_patch_without_its_twin_keeps_its_side() -> None:
    pipe = make_well("well_1", 12, paired=True)
    restored = restore_well(cut(pipe, (11,)))
    (well,) = restored.wells
    np.testing.assert_array_equal(well.values[:, ::2], pipe.values[:, ::2])
    assert not well.valid[-36:, 1::2].any()
    assert restored.missing == (11,)


@pytest.mark.parametrize(("paired", "stuck"), [(False, (8, 9, 10, 11)), (True, (8, 9, 10, 11))])
def test_a_stuck_block_keeps_its_first_patch_only(paired: bool, stuck: tuple[int, ...]) -> None:
    patched = cut(make_well("well_1", 12, paired=paired))
    for k in stuck:
        patched.values[k] = patched.values[6 + k % 2 if paired else 7]
    restored = restore_well(patched)
    assert restored.paired is paired
    assert restored.stuck == stuck
    (well,) = restored.wells
    first = 36 * (4 if paired else 8)
    assert not well.valid[first:].any()
    assert (well.target[first:] == IGNORE).all()
    assert well.valid[:first].all()
    assert well.null_counts == {}
    (warning,) = (p for p in restoration_problems([restored]) if p.severity == "warning")
    assert "well_1 is stuck: 4 patches" in warning.what
    assert warning.where == "well_1_patch_8-11"


def test_empty_patches_are_no_stuck_ones() -> None:
    patched = cut(make_well("well_1", 12))
    for k in (0, 1, 2):
        patched.values[k] = np.full((36, 36), -999.25, dtype=np.float32)
    restored = restore_well(patched)
    assert restored.empty == (0, 1, 2)
    assert restored.stuck == ()
    assert not restored.wells[0].valid[:108].any()
    assert restored.wells[0].null_counts == {"-999.25": 3 * 1296}


def test_a_well_of_nothing_but_nulls() -> None:
    patched = cut(make_well("well_1", 2))
    patched.values = {k: np.full((36, 36), np.nan, dtype=np.float32) for k in patched.values}
    (well,) = restore_well(patched).wells
    assert not well.valid.any()


def test_a_wild_index_costs_no_memory() -> None:
    patched = cut(make_well("well_1", 4))
    patched.add(PatchFile(1, 99_999_999, "x"), patched.values[0], "train")
    with pytest.raises(DataError, match="more than 2,000 patches in a row are missing") as caught:
        restore_well(patched)
    assert "well_1_patch_99999999" in caught.value.where


def test_unknown_layout() -> None:
    with pytest.raises(ConfigError, match="auto, single, interleaved, views"):
        restore_well(cut(make_well("well_1", 2)), azimuth_layout="both")


def test_the_layout_is_stated_with_its_evidence() -> None:
    wells = [restore_well(cut(make_well(f"well_{n}", 12, paired=n == 7))) for n in (3, 7)]
    note = restoration_problems(wells)[0]
    assert note.severity == "note"
    assert note.what.endswith("same rows): well_7; single wells: well_3")
    assert "well_7: paired (pairing +" in note.where
    assert not restoration_problems([restore_well(cut(make_well("well_3", 4)), azimuth_layout="single")])


@pytest.mark.skipif(not REAL.is_dir(), reason="the real wells are not beside the repository")
@pytest.mark.parametrize("path", sorted(REAL.glob("*.npz")), ids=lambda p: p.stem)
def test_real_wells(path) -> None:
    part, number = path.stem.split("_well_")
    with np.load(path, allow_pickle=False) as z:
        raw = z["values"].astype(np.float32) * np.float32(1e-4)
        raw[z["values"] == -32768] = np.nan
        raw[z["values"] == -32767] = float(z["sentinel"])
        masks = np.unpackbits(z["silver"], axis=-1, count=1296).reshape(-1, 36, 36)
    patched = PatchedWell(f"well_{number}")
    for k in range(len(raw)):
        patched.add(PatchFile(int(number), k, ""), raw[k], part, masks[k])
    restored = restore_well(patched)
    assert restored.paired is (part == "train" and int(number) in PAIRED)
    assert not restored.evidence.ambiguous
    assert restored.stuck == (tuple(range(70, 78)) if path.stem == "train_well_8" else ())
    for k in restored.stuck:
        patched.values[k] = np.full((36, 36), np.nan, dtype=np.float32)
    assert_windows_are_patches(restored.wells, patched)
