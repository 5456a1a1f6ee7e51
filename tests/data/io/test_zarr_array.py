import json
import tracemalloc
import zipfile
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr

from wellseg.data.io import zarr_array as input_zarr
from wellseg.data.io.zarr_array import open_zarr
from wellseg.errors import DataError, EnvironmentFault

WELL = np.random.default_rng(0).normal(size=(100, 36)).astype(np.float32)


def save_zarr(path: Path, values=WELL, **settings) -> Path:
    if path.suffix == ".zip":
        with zarr.storage.ZipStore(path, mode="w") as store:
            zarr.create_array(store, data=values, **settings)
    else:
        zarr.create_array(path, data=values, **settings)
    return path


def edit_zarr(folder: Path, **changes) -> Path:
    path = save_zarr(folder / "w.zarr", chunks=(50, 36))
    metadata = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps(metadata | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [10**12, 36]}, "claims more than it holds"),
        ({"shape": [100]}, "cannot read"),
        ({"shape": [0, 36]}, "holds no rows"),
        ({"shape": ["a", 36]}, "cannot read"),
        ({"data_type": "complex64"}, "holds complex64"),
        ({"data_type": {"name": "x"}}, "cannot read"),
        ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**9, 36]}}}, "chunks .* too large"),
        ({"codecs": [{"name": "bytes"}, {"name": "numcodecs.pickle"}]}, "codec 'numcodecs.pickle'"),
        ({"codecs": [{"name": "sharding_indexed", "configuration": {"codecs": [{"name": "evil"}]}}]}, "codec 'evil'"),
        ({"codecs": 3}, "cannot read"),
        ({"node_type": "group"}, "group of arrays"),
    ],
)
def test_zarr_metadata_are_judged_before_a_chunk_is_read(tmp_path, monkeypatch, changes, message):
    path = edit_zarr(tmp_path, **changes)
    monkeypatch.setattr(input_zarr, "import_zarr", lambda _: pytest.fail("the library saw it"))
    with pytest.raises(DataError, match=message), open_zarr(str(path)):
        pass


def test_a_zarr_filter_that_would_unpickle_is_refused(tmp_path):
    path = save_zarr(tmp_path / "w.zarr", chunks=(50, 36), zarr_format=2)
    metadata = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps(metadata | {"filters": [{"id": "pickle"}]}))
    with pytest.raises(DataError, match="codec 'pickle'"), open_zarr(str(path)):
        pass


def test_damaged_zarr_chunks_and_metadata(tmp_path):
    path = save_zarr(tmp_path / "w.zarr", chunks=(50, 36))
    next(p for p in path.rglob("*") if p.is_file() and p.name == "0").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"not one piece of zstd") as caught, open_zarr(str(path)):
        pass
    assert "c/0/0" in caught.value.where or "c/1/0" in caught.value.where
    save_zarr(tmp_path / "v.zarr", chunks=(50, 36))
    chunk = tmp_path / "v.zarr/c/0/0"
    content = bytearray(chunk.read_bytes())
    content[2000:3000] = bytes(1000)
    chunk.write_bytes(content)
    with pytest.raises(DataError), open_zarr(str(tmp_path / "v.zarr")) as rows:
        rows.read(0, 100)
    (path / "zarr.json").write_text("{")
    with pytest.raises(DataError, match="cannot read"), open_zarr(str(path)):
        pass
    (tmp_path / "w.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"cannot read w\.zip"), open_zarr(str(tmp_path / "w.zip")):
        pass


def test_zip_files_that_are_no_arrays_and_zip_bombs(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("readme", "x")
    with pytest.raises(DataError, match="not a Zarr array"), open_zarr(str(tmp_path / "w.zip")):
        pass
    save_zarr(tmp_path / "v.zip", chunks=(100, 36))
    monkeypatch.setattr(input_zarr, "MAX_BAND", 1000)
    with pytest.raises(DataError, match="too large"), open_zarr(str(tmp_path / "v.zip")):
        pass


@pytest.mark.parametrize("compressor", ["zstd", "blosc", "lz4", "zstd 3", "blosc 3", "none 3", "shards"])
def test_compressors_that_state_their_size_are_opened(tmp_path, compressor):
    codecs = {
        "zstd": {"compressors": numcodecs.Zstd(), "zarr_format": 2},
        "blosc": {"compressors": numcodecs.Blosc(), "zarr_format": 2, "filters": [numcodecs.Shuffle(4)]},
        "lz4": {"compressors": numcodecs.LZ4(), "zarr_format": 2},
        "zstd 3": {"compressors": [zarr.codecs.ZstdCodec(checksum=True), zarr.codecs.Crc32cCodec()]},
        "blosc 3": {"compressors": [zarr.codecs.BloscCodec()]},
        "none 3": {"compressors": None},
        "shards": {"compressors": [zarr.codecs.BloscCodec()], "shards": (40, 36)},
    }
    path = save_zarr(tmp_path / "w.zarr", chunks=(20, 12), **codecs[compressor])
    with open_zarr(str(path)) as rows:
        np.testing.assert_array_equal(rows.read(0, 100), WELL)


STACKED = {
    "gzip": [zarr.codecs.GzipCodec()],
    "zstd, zstd": [zarr.codecs.ZstdCodec(), zarr.codecs.ZstdCodec()],
    "zstd, blosc": [zarr.codecs.ZstdCodec(), zarr.codecs.BloscCodec()],
}


@pytest.mark.parametrize("kind", [*STACKED, "shards", "filters", "delta"])
def test_stacked_compressors_and_those_that_state_no_size_are_refused(tmp_path, monkeypatch, kind):
    settings = {
        "shards": {"compressors": STACKED["zstd, blosc"], "shards": (40, 36)},
        "filters": {"compressors": numcodecs.Zstd(), "filters": [numcodecs.Blosc()], "zarr_format": 2},
        "delta": {"compressors": None, "filters": [numcodecs.Delta("f4")], "zarr_format": 2},
    }
    path = save_zarr(tmp_path / "w.zarr", chunks=(20, 36), **settings.get(kind, {"compressors": STACKED.get(kind)}))
    monkeypatch.setattr(input_zarr, "import_zarr", lambda _: pytest.fail("the library saw it"))
    with pytest.raises(DataError, match="not opened") as caught, open_zarr(str(path)):
        pass
    assert "zstd" in caught.value.fix


BOMB = bytes(1 << 22)


@pytest.mark.parametrize("kind", ["zstd", "two frames", "unknown", "blosc", "lz4", "plain", "shard", "shard beyond"])
def test_a_chunk_that_would_unpack_to_more_than_it_may_hold_is_not(tmp_path, monkeypatch, kind):
    """Also in a zip file, whose members are read in another way."""
    codec = {"blosc": numcodecs.Blosc(), "lz4": numcodecs.LZ4(), "plain": None}
    packed = {
        "zstd": numcodecs.Zstd().encode(BOMB),
        "two frames": bytes(numcodecs.Zstd().encode(bytes(100))) + bytes(numcodecs.Zstd().encode(BOMB)),
        "unknown": b"\x28\xb5\x2f\xfd\x00\x58\x01\x00\x00",  # a frame without the size
        "blosc": numcodecs.Blosc().encode(BOMB),
        "lz4": numcodecs.LZ4().encode(BOMB),
        "plain": BOMB,
    }
    if kind.startswith("shard"):
        save_zarr(tmp_path / "w.zarr", chunks=(50, 36), shards=(100, 36))
        chunk = tmp_path / "w.zarr/c/0/0"
        bomb, tail = bytes(packed["zstd"]), bytearray(chunk.read_bytes()[-36:])
        held = len(bomb) + (1 << 40 if kind == "shard beyond" else 0)
        tail[16:32] = np.array([0, held], "<u8").tobytes()
        chunk.write_bytes(bomb + bytes(tail))
    else:
        compressor = codec.get(kind, numcodecs.Zstd())
        save_zarr(tmp_path / "w.zarr", chunks=(100, 36), compressors=compressor, zarr_format=2)
        chunk = tmp_path / "w.zarr/0.0"
        chunk.write_bytes(packed[kind])
    with zipfile.ZipFile(tmp_path / "w.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (f for f in (tmp_path / "w.zarr").rglob("*") if f.is_file()):
            archive.write(file, file.relative_to(tmp_path / "w.zarr"))
    monkeypatch.setattr(input_zarr, "import_zarr", lambda _: pytest.fail("the library saw it"))
    for name in ("w.zarr", "w.zip"):
        with pytest.raises(DataError, match="is not unpacked") as caught, open_zarr(str(tmp_path / name)):
            pass
        assert chunk.name in caught.value.where


def test_the_chunks_of_one_band_are_bounded_together(tmp_path):
    """Each chunk is small, all those of the same rows are not."""
    path = save_zarr(tmp_path / "w.zarr", np.zeros((1, 2048), np.float32), chunks=(1, 1))
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [10_000, 1]
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(DataError, match="too large"), open_zarr(str(path)):
        pass


def test_one_band_of_chunks_is_kept(tmp_path):
    path = save_zarr(tmp_path / "w.zarr", np.ones((400_000, 36), np.float32), chunks=(100_000, 36))
    with open_zarr(str(path)) as rows:
        tracemalloc.start()
        kept = []
        for start in (0, 150_000, 250_000, 350_000, 50_000, 150_000):
            rows.read(start, start + 10)
            kept.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert min(kept[1:]) < 1.5 * 100_000 * 36 * 4  # the library's thread may hold on to the last band for a moment


def test_metadata_of_any_length_are_not_read(tmp_path):
    path = save_zarr(tmp_path / "w.zarr", chunks=(50, 36))
    with open(path / "zarr.json", "a") as file:
        file.write(" " * (1 << 20))
    with pytest.raises(DataError, match=r"zarr\.json is too large"), open_zarr(str(path)):
        pass


def test_chunks_behind_links_to_folders_are_not_read(tmp_path):
    path = save_zarr(tmp_path / "w.zarr", chunks=(50, 36))
    (path / "c").rename(tmp_path / "c")
    (path / "c").symlink_to(tmp_path / "c")
    with pytest.raises(DataError, match="link to a folder"), open_zarr(str(path)):
        pass


def test_without_the_extra_zarr_says_what_to_install(tmp_path, monkeypatch):
    path = save_zarr(tmp_path / "w.zarr")
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(EnvironmentFault, match=r"wellseg\[zarr\]"), open_zarr(str(path)):
        pass


def test_missing_chunks_are_the_fill_value(tmp_path):
    array = zarr.create_array(tmp_path / "w.zarr", shape=(100, 36), chunks=(10, 36), dtype="f4", fill_value=np.nan)
    array[20:30] = 1
    with open_zarr(str(tmp_path / "w.zarr")) as rows:
        values = rows.read(0, 100)
    assert np.isnan(values).sum() == 90 * 36
    assert (values[20:30] == 1).all()
