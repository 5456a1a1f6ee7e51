from dataclasses import replace

import numpy as np
import pytest
from corroseg_wells import make_well

from wellseg.data.wells.checks import check_wells, find_leaks, folder_leaks
from wellseg.data.wells.well import Well
from wellseg.types import IGNORE


def with_names(well: Well) -> Well:
    sides = 2 if well.azimuth_layout == "interleaved" else 1
    blocks = well.num_rows // 36
    names = np.array([[f"{well.name}_patch_{b * sides + s}" for s in range(sides)] for b in range(blocks)])
    return replace(well, patch_names=names)


def with_values(well: Well, values: np.ndarray) -> Well:
    return replace(well, values=values.astype(np.float32), valid=np.isfinite(values))


def test_sound_wells_have_no_problems() -> None:
    wells = [with_names(make_well(f"well_{n}", 8, paired=n == 7)) for n in (3, 4, 7)]
    assert check_wells(wells) == []
    assert find_leaks(wells[:1], wells[1:]) == []


@pytest.mark.parametrize("named", [True, False])
def test_equal_patches_in_two_wells_are_found(named: bool) -> None:
    a, b = make_well("well_3", 8), make_well("well_13", 8)
    values = b.values.copy()
    values[72:108] = a.values[180:216]
    a, b = (with_names(w) if named else w for w in (a, with_values(b, values)))
    (warning,) = check_wells([a, b])
    assert warning.severity == "warning"
    expected = "well_3_patch_5 = well_13_patch_2" if named else "well_3 rows 180-215 = well_13 rows 72-107"
    assert warning.where == expected
    (leak,) = find_leaks([a], [b])
    assert leak.severity == "error"
    assert leak.what.startswith("leak: well_3")
    assert leak.what.endswith("have the same content")
    assert leak.fault == 12


def test_equal_patches_of_train_and_test_wells_of_one_name_are_told_apart() -> None:
    a = with_names(make_well("well_1", 4))
    b = replace(a, name="test_well_1", group="test_well_1", target=None)
    (warning,) = check_wells([a, b])
    assert "well_1_patch_0 = test_well_1: well_1_patch_0" in warning.where


def test_empty_and_constant_patches_are_no_copies() -> None:
    wells = []
    for name in ("well_1", "well_2"):
        well = make_well(name, 6)
        values = well.values.copy()
        values[:72] = np.nan
        values[72:82] = 0.0
        values[82:108] = np.nan
        wells.append(with_names(with_values(well, values)))
    assert check_wells(wells) == []


def test_views_of_one_well_on_both_sides_are_a_leak() -> None:
    left, right = with_names(make_well("well_6", 12, paired=True)).views()
    (leak,) = find_leaks([left], [right])
    assert leak.what == "leak: well_6_patch_0 and _1 share rows"
    assert "data.split=wells" in leak.fix


def test_overlapping_sections_of_one_pipe_are_a_leak() -> None:
    well = with_names(make_well("well_6", 12))

    def section(first: int, last: int) -> Well:
        rows = slice(36 * first, 36 * last)
        parts = {key: getattr(well, key)[rows] for key in ("values", "valid", "target", "depth")}
        return replace(well, **parts, patch_names=well.patch_names[first:last], name=f"well_6[{first}]", group="well_6")

    assert find_leaks([section(0, 6)], [section(6, 12)]) == []
    (leak,) = find_leaks([section(0, 6)], [section(4, 12)])
    assert leak.what == "leak: well_6_patch_4 and _4 share rows"


def test_folders_that_part_twins_leak() -> None:
    names = {k: f"well_6_patch_{k}" for k in range(14)}
    parts = dict.fromkeys(range(14), "train") | {11: "validation", 12: "validation", 13: "validation"}
    (leak,) = folder_leaks("well_6", names, parts, paired=True)
    assert leak.severity == "error"
    assert leak.what == "leak: well_6_patch_10 and _11 share rows"
    (leak,) = folder_leaks("well_6", names, parts, paired=False, severity="warning")
    assert leak.severity == "warning"
    assert leak.what == "leak: patches of well_6 lie in train and in validation"
    assert folder_leaks("well_6", names, dict.fromkeys(range(14), "train"), paired=True) == []
    parts[0] = "validation"
    (leak,) = folder_leaks("well_6", names, parts, paired=True)
    assert leak.what == "leak: well_6_patch_0 and _1 share rows, as do 1 more pairs of well_6"
    assert leak.where == "well_6_patch_0 | _1, well_6_patch_10 | _11"


def test_frozen_rows_are_told() -> None:
    well = make_well("well_8", 6)
    values = well.values.copy()
    values[100:120] = values[100]
    values[150:155] = values[150]
    values[200:] = np.nan
    (warning,) = check_wells([with_values(well, values)])
    assert warning.where == "rows 100-119"


def test_unknown_null_codes_are_told() -> None:
    well = make_well("well_3", 6)
    values = well.values.copy()
    values[10:12] = -32768.0
    (warning,) = check_wells([with_values(well, values)])
    assert warning.what == "well_3: unknown no-data codes? -32768"
    assert warning.where == "-32768 in 72 pixels"
    values[10:12] = -0.9  # a deep pit
    values[10, 3:5] = 40.0  # a spike or two
    assert check_wells([with_values(well, values)]) == []


def test_a_well_without_data_or_without_labels_is_told() -> None:
    well = make_well("well_3", 6)
    (warning,) = check_wells([with_values(well, np.full_like(well.values, np.nan))])
    assert "holds no data at all" in warning.what
    (warning,) = check_wells([replace(well, target=np.full_like(well.target, IGNORE))])
    assert "no label on any valid pixel" in warning.what
