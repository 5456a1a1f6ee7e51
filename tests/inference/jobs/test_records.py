"""The schema of manifests: sums, and the way from the first format to today's."""

import pytest

from wellseg.inference.jobs import records
from wellseg.inference.jobs.records import check_item, migrate, parse, short, totals, versions

WELL = {
    "key": "w.npy", "name": "w.npy", "status": "done", "reason": None, "files": 1, "sha256": "0", "kind": "well",
    "shape": [10, 36], "rows": 10, "pixels": 360, "null_counts": {}, "azimuth": "36 columns", "threshold": 0.5,
    "defect_pixels": 40, "defect_share": 0.1, "no_data_pixels": 20, "findings": [], "bad_files": {}, "seconds": 2.0,
    "rows_per_second": 5.0, "outputs": [],
}  # fmt: skip
IMAGE = {
    "key": "a", "name": "a.png", "status": "done", "reason": None, "sha256": "0", "kind": "image", "shape": [4, 5],
    "pixels": 20, "threshold": None, "class_pixels": [10, 6, 4], "no_data_pixels": 0, "pieces": 1, "bad_files": {},
    "seconds": 0.5, "outputs": [],
}  # fmt: skip
FAILED = {
    "key": "b",
    "name": "b",
    "status": "failed",
    "reason": "damaged",
    "sha256": None,
    "bad_files": {},
    "outputs": [],
}


@pytest.mark.parametrize("item", [WELL, IMAGE], ids=["well", "image"])
def test_items_of_the_first_format_lack_one_key_that_migration_adds(item):
    with pytest.raises(KeyError):
        check_item(item)
    (found, failed) = migrate({"format": 1, "artifact": {"name": "m", "sha256": "1"}, "items": [item, FAILED]})["items"]
    check_item(found)
    check_item(failed)
    assert item.items() <= found.items()


def test_migration_counts_the_classes_of_wells_and_names_the_model_file():
    stored = {"format": 1, "artifact": {"name": "m", "sha256": "1"}, "settings": {"band": None}, "items": [WELL]}
    found = migrate(stored)
    assert found["items"][0]["class_pixels"] == [300, 40]
    assert found["artifact"] == {"name": "m", "sha256": "1", "files": [{"name": "m", "sha256": "1"}]}
    assert (found["format"], found["settings"]) == (2, {"band": None})
    assert migrate(found) is found


def test_later_formats_are_not_guessed_at():
    with pytest.raises(ValueError, match="format 2"):
        migrate({"format": 3, "items": []})


def test_totals_are_sums_over_what_is_done():
    wells = [{**WELL, "class_pixels": [300, 40]}, FAILED, {**WELL, "class_pixels": [100, 240]}]
    assert totals(wells, ("rows", "defect_pixels"), "row") == {
        "items": 3, "done": 2, "failed": 1, "bad_files": 0, "class_pixels": [400, 280], "rows": 20, "defect_pixels": 80,
        "pixels": 720, "no_data_pixels": 40, "seconds": 4.0, "rows_per_second": 5.0,
    }  # fmt: skip
    images = totals([IMAGE, IMAGE], (), "image")
    assert (images["class_pixels"], images["images_per_second"], images["pixels"]) == ([20, 12, 8], 2.0, 40)
    assert totals([FAILED], (), "image")["images_per_second"] is None


def test_numbers_that_json_has_not_are_refused():
    with pytest.raises(ValueError, match="NaN is no number"):
        parse('{"a": NaN}')
    assert short("a" * 100, 10) == '"aaaaaa...'


def test_a_package_that_another_distribution_brings_has_its_own_version(monkeypatch):
    known = records.version

    def version(name):
        if name == "onnxruntime":  # as where onnxruntime-gpu is installed
            raise records.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(records, "version", version)
    assert versions("onnxruntime")["onnxruntime"] == pytest.importorskip("onnxruntime").__version__
