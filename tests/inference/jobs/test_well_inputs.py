import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from wellseg.data.io import arrays as input_files
from wellseg.errors import ConfigError, DataError
from wellseg.inference.jobs.inputs import find, natural
from wellseg.inference.jobs.well_inputs import WellInputs, WellItem

WELL = np.random.default_rng(0).normal(size=(100, 36)).astype(np.float32)


def find_items(inputs, part="test", results=()):
    return find(inputs, WellInputs(part), results)


def item(path) -> WellItem:
    return WellItem(Path(path).name, (str(path),), (Path(path).name,))


def npz(path: Path, **arrays) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def save_zarr(path: Path, values=WELL, **settings) -> Path:
    if path.suffix == ".zip":
        with zarr.storage.ZipStore(path, mode="w") as store:
            zarr.create_array(store, data=values, **settings)
    else:
        zarr.create_array(path, data=values, **settings)
    return path


def written(folder: Path, kind: str) -> Path:
    match kind:
        case "npy":
            np.save(folder / "w.npy", WELL)
            return folder / "w.npy"
        case "npy, columns first":
            np.save(folder / "w.npy", np.asfortranarray(WELL))
            return folder / "w.npy"
        case "npy, big-endian float64":
            np.save(folder / "w.npy", WELL.astype(">f8"))
            return folder / "w.npy"
        case "npz":
            return npz(folder / "w.npz", anything=WELL)
        case "npz with others":
            return npz(folder / "w.npz", depth=np.arange(100.0), values=WELL)
        case "npz, columns first":
            return npz(folder / "w.npz", values=np.asfortranarray(WELL))
        case "zarr 3":
            return save_zarr(folder / "w.zarr", chunks=(7, 10))
        case "zarr 3, sharded":
            return save_zarr(folder / "w.zarr", chunks=(7, 36), shards=(35, 36))
        case "zarr 2":
            return save_zarr(folder / "w.zarr", chunks=(30, 36), zarr_format=2)
        case "zarr zip":
            return save_zarr(folder / "w.zip", chunks=(30, 36))
    raise ValueError(kind)


KINDS = ["npy", "npy, columns first", "npy, big-endian float64", "npz", "npz with others", "npz, columns first"]
KINDS += ["zarr 3", "zarr 3, sharded", "zarr 2", "zarr zip"]


@pytest.mark.parametrize("kind", KINDS)
def test_any_rows_of_any_format_in_any_order(tmp_path, kind):
    with item(written(tmp_path, kind)).open() as rows:
        assert rows.shape == (100, 36)
        for start, stop in [(0, 40), (20, 60), (20, 30), (60, 100), (90, 95), (0, 100), (99, 100), (3, 4), (50, 50)]:
            got = rows.read(start, stop)
            np.testing.assert_array_equal(got, WELL[start:stop], err_msg=f"{start}:{stop}")
            assert got.dtype == np.float32


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_stack_is_read_image_by_image(tmp_path, order):
    stack = np.random.default_rng(1).normal(size=(9, 12, 8)).astype(np.float32)
    np.save(tmp_path / "s.npy", np.asarray(stack, order=order))
    with item(tmp_path / "s.npy").open() as images:
        assert images.shape == stack.shape
        np.testing.assert_array_equal(images.read(0, 4), stack[:4])
        np.testing.assert_array_equal(images.read(3, 9), stack[3:])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 36), np.int16), None),
        (np.zeros((1, 3), np.float64), None),
        (np.zeros((4, 36), complex), "holds complex128"),
        (np.full((4, 36), "a"), "holds str"),
        (np.zeros((4, 36), bool), "holds bool"),
        (np.zeros((0, 36), np.float32), "holds no rows"),
        (np.zeros((0, 36, 36), np.float32), "holds no rows"),
        (np.zeros((40, 2), np.float32), "too few columns"),
        (np.zeros((36, 5000), np.float32), "transpose"),
        (np.zeros(36, np.float32), r"\(rows, columns\)"),
        (np.zeros((1, 2, 3, 4), np.float32), r"\(images, rows, columns\)"),
    ],
)
def test_what_is_an_image(tmp_path, values, message):
    np.save(tmp_path / "w.npy", values)
    if message is None:
        with item(tmp_path / "w.npy").open() as rows:
            np.testing.assert_array_equal(rows.read(0, len(values)), values)
        return
    with pytest.raises(DataError, match=message), item(tmp_path / "w.npy").open():
        pass


def test_an_overflow_of_float64_is_an_infinity_and_warns_of_nothing(tmp_path):
    np.save(tmp_path / "w.npy", np.full((2, 3), 1e300))
    with item(tmp_path / "w.npy").open() as rows:
        assert np.isinf(rows.read(0, 2)).all()


def test_a_compressed_file_in_pieces_is_unpacked_once(tmp_path, monkeypatch):
    """Halos make consecutive reads overlap; starting again each time would take quadratic time."""
    values = np.random.default_rng(0).normal(size=(5000, 36)).astype(np.float32)
    path, taken = npz(tmp_path / "w.npz", values=values), []
    whole = input_files._read_values
    monkeypatch.setattr(input_files, "_read_values", lambda f, n, d, p: taken.append(n) or whole(f, n, d, p))
    with item(path).open() as rows:
        for start in range(0, 5000, 500):
            first, last = max(start - 50, 0), min(start + 550, 5000)
            np.testing.assert_array_equal(rows.read(first, last), values[first:last])
    assert sum(taken) == values.size


def damaged_npz(path: Path, kind: str) -> None:
    npz(path, values=WELL)
    content = bytearray(path.read_bytes())
    if kind == "truncated":
        content = content[:2000]
    elif kind == "flipped":
        content[1000] ^= 0xFF
    elif kind == "lzma":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
            buffer = io.BytesIO()
            np.save(buffer, np.tile(WELL, (20, 1)))
            archive.writestr("values.npy", buffer.getvalue())
        content = bytearray(path.read_bytes())
        content[5000:6000] = b"\xff" * 1000
    elif kind == "not a zip":
        content = b"nothing"
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["truncated", "flipped", "not a zip", "lzma"])
def test_damaged_npz_is_refused_with_its_name(tmp_path, kind):
    damaged_npz(tmp_path / "w.npz", kind)
    with pytest.raises(DataError, match="cannot read") as caught, item(tmp_path / "w.npz").open() as rows:
        rows.read(0, rows.shape[0])
    assert "w.npz" in caught.value.where


def test_npz_that_does_not_say_which_array(tmp_path):
    npz(tmp_path / "w.npz", a=WELL, b=WELL)
    with pytest.raises(DataError, match="which array"), item(tmp_path / "w.npz").open():
        pass


def test_npz_pickle_is_not_opened(tmp_path):
    np.savez(tmp_path / "w.npz", values=np.array([Path()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="object arrays are not loaded"), item(tmp_path / "w.npz").open():
        pass


def test_npz_whose_header_claims_more_than_the_member_holds(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, WELL)
    content = buffer.getvalue().replace(b"(100, 36)", b"(10**9,3)"[:9]).replace(b"(10**9,3)", b"(999, 36)")
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("values.npy", content)
    with pytest.raises(DataError, match="header says 999x36"), item(tmp_path / "w.npz").open():
        pass


def test_a_decompression_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(input_files, "BOMB_BYTES", 1 << 16)
    npz(tmp_path / "bomb.npz", values=np.zeros((100_000, 36), np.float32))
    npz(tmp_path / "log.npz", values=np.tile(WELL, (100, 1)))
    with pytest.raises(DataError, match="not unpacked"), item(tmp_path / "bomb.npz").open():
        pass
    with item(tmp_path / "log.npz").open() as rows:
        assert rows.shape == (10_000, 36)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".zip", ".zarr"])
def test_pipes_are_refused_and_not_waited_for(tmp_path, suffix):
    pipe = path = tmp_path / f"w{suffix}"
    if suffix == ".zarr":
        pipe = save_zarr(path, chunks=(50, 36)) / "c/1/0"
        pipe.unlink()
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="not a regular file"), item(path).open():
        pass
    with pytest.raises(DataError, match="not a regular file"):
        item(path).sha256()
    os.mkfifo(tmp_path / "well_1_patch_0.npy")
    (patch,) = find_items([str(tmp_path / "well_1_patch_0.npy")])[0]
    _, problems = patch.read()
    assert "not a regular file" in next(iter(problems.values())).why


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / name, WELL[:36])


def names(items) -> list[str]:
    return [i.name for i in items]


def test_a_folder_holds_patches_and_wells_side_by_side(tmp_path):
    touch(tmp_path, "well_10_patch_0.npy", "well_2_patch_11.npy", "well_2_patch_2.npy", "a10.npy", "a9.npy", ".a.npy")
    save_zarr(tmp_path / "log.zarr")
    save_zarr(tmp_path / "plain")
    (tmp_path / "notes.txt").touch()
    items, problems = find_items([str(tmp_path)])
    assert names(items) == ["a9.npy", "a10.npy", "log.zarr", "plain", "well_2", "well_10_patch_0.npy"]
    assert items[3].outputs == ("plain.zarr",)
    assert [p.index for p in items[4].patches] == [2, 11]
    assert items[4].outputs == ("well_2_patch_2.npy", "well_2_patch_11.npy")
    assert len(problems) == 1
    assert "notes.txt" in problems[0].where


@pytest.mark.parametrize(
    ("part", "expected"),
    [("test", ["x_test/well_1"]), ("train", ["x_train/well_1"]), ("all", ["x_train/well_1", "x_test/well_1"])],
)
def test_a_challenge_folder_by_part(tmp_path, part, expected):
    touch(tmp_path, *(f"{f}/well_1_patch_{k}.npy" for f in ("x_train", "x_test") for k in (0, 1)))
    (tmp_path / "y_train.csv").touch()
    items, problems = find_items([str(tmp_path)], part)
    assert names(items) == expected
    assert items[0].outputs[0] == f"{expected[0]}_patch_0.npy"
    assert not problems


def test_a_course_folder_by_part(tmp_path):
    for part in ("train", "validation", "test"):
        touch(tmp_path, f"{part}/images/well_1_patch_0.npy", f"{part}/images/well_1_patch_1.npy")
    assert names(find_items([str(tmp_path)])[0]) == ["test/images/well_1"]
    assert names(find_items([str(tmp_path)], "train")[0]) == ["train/images/well_1", "validation/images/well_1"]
    assert len(find_items([str(tmp_path)], "all")[0]) == 3
    with pytest.raises(ConfigError, match="part=rest"):
        find_items([str(tmp_path)], "rest")


def test_globs_keep_the_folders_below_their_fixed_part(tmp_path):
    touch(tmp_path, "a/log.npy", "b/log.npy", "b/other.npy")
    items, _ = find_items([str(tmp_path / "*" / "log.npy")])
    assert [i.outputs for i in items] == [("a/log.npy",), ("b/log.npy",)]
    assert len(find_items([str(tmp_path / "**" / "*.npy")])[0]) == 3


def test_a_glob_passes_over_predictions_and_says_so(tmp_path):
    touch(tmp_path, "data/a.npy", "data/out/mask/a.npy", "data/out/probability/a.npy", "data/out/b.npy")
    (tmp_path / "link").symlink_to(tmp_path / "data/out")
    results = [str(tmp_path / "link" / name) for name in ("mask", "probability", "overlay")]
    items, problems = find_items([str(tmp_path / "data/**/*.npy")], results=results)
    assert names(items) == ["a.npy", "out/b.npy"]
    assert ["2 left out" in p.what for p in problems] == [True]
    assert str(tmp_path / "data/out/mask/a.npy") in problems[0].where
    with pytest.raises(DataError, match="nothing to predict") as caught:
        find_items([str(tmp_path / "data/out/*/a.npy")], results=results)
    assert "predictions" in caught.value.why


def test_a_name_with_brackets_is_a_name_before_it_is_a_glob(tmp_path):
    touch(tmp_path, "log[0-9].npy", "log5.npy")
    assert names(find_items([str(tmp_path / "log[0-9].npy")])[0]) == ["log[0-9].npy"]
    (tmp_path / "log[0-9].npy").unlink()
    assert names(find_items([str(tmp_path / "log[0-9].npy")])[0]) == ["log5.npy"]


def test_wells_of_the_same_number_in_two_folders_are_two_wells(tmp_path):
    touch(tmp_path, "a/well_1_patch_0.npy", "b/well_1_patch_1.npy")
    assert names(find_items([str(tmp_path / "*" / "*.npy")])[0]) == ["a/well_1_patch_0.npy", "b/well_1_patch_1.npy"]
    touch(tmp_path, "a/well_1_patch_2.npy", "b/well_1_patch_3.npy")
    assert names(find_items([str(tmp_path / "*" / "*.npy")])[0]) == ["a/well_1", "b/well_1"]
    with pytest.raises(ConfigError, match="same output"):  # their overlays would be
        find_items([str(tmp_path / "a"), str(tmp_path / "b")])


def test_two_inputs_with_one_output_are_refused_with_both_names(tmp_path):
    touch(tmp_path, "a/log.npy", "b/log.npy")
    with pytest.raises(ConfigError, match="same output") as caught:
        find_items([str(tmp_path / "a"), str(tmp_path / "b")])
    assert str(tmp_path / "a" / "log.npy") in caught.value.where
    assert str(tmp_path / "b" / "log.npy") in caught.value.where
    assert len(find_items([str(tmp_path / "a"), str(tmp_path / "a" / "log.npy")])[0]) == 1  # the same file twice


def test_nothing_to_predict(tmp_path):
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "log.txt.npy")
    (tmp_path / "log.las").touch()
    for given, message in [
        (tmp_path / "none.npy", "no such input"),
        (tmp_path / "*.npz", "nothing to predict"),
        (tmp_path / "empty", "nothing to predict"),
        (tmp_path / "log.las", "cannot be predicted"),
    ]:
        with pytest.raises(DataError, match=message):
            find_items([str(given)])


def test_hash_changes_with_any_byte_and_name_but_not_with_the_place(tmp_path):
    touch(tmp_path, *(f"{f}/well_1_patch_{k}.npy" for f in "ab" for k in (0, 1)))
    save_zarr(tmp_path / "a" / "w.zarr")
    save_zarr(tmp_path / "b" / "w.zarr")
    first, second = (find_items([str(tmp_path / f)])[0] for f in "ab")
    assert [i.sha256() for i in first] == [i.sha256() for i in second]
    before = [i.sha256() for i in first]
    path = tmp_path / "a" / "well_1_patch_1.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    os.rename(tmp_path / "a" / "w.zarr" / "c", tmp_path / "a" / "w.zarr" / "d")
    assert not set(before) & {i.sha256() for i in first}


def test_bad_patches_are_listed_and_the_others_read(tmp_path):
    touch(tmp_path, "well_1_patch_0.npy", "well_1_patch_1.npy", "well_1_patch_2.npy")
    (tmp_path / "well_1_patch_1.npy").write_bytes(b"damaged")
    np.save(tmp_path / "well_1_patch_2.npy", WELL[:36, :35])
    images, problems = find_items([str(tmp_path)])[0][0].read()
    assert [f.index for f in images] == [0]
    assert [Path(p).name for p in problems] == ["well_1_patch_1.npy", "well_1_patch_2.npy"]
    assert "36x35" in problems[str(tmp_path / "well_1_patch_2.npy")].what


def test_numbers_are_ordered_as_numbers():
    assert sorted(["w10", "w9", "w", "v11"], key=natural) == ["v11", "w", "w9", "w10"]
