"""wellseg.data.images.listing: many headers at a time, by every set of images, with findings in a stable order."""

import re
import threading
import time

import pytest
from pictures import PICTURE

from wellseg.data.datasets.airbus.module import AirbusDataModule
from wellseg.data.datasets.carvana.module import CarvanaDataModule
from wellseg.data.datasets.echocem.module import EchoCemDataModule
from wellseg.data.datasets.stanford2d3d.module import Stanford2D3DDataModule
from wellseg.data.images import listing
from wellseg.data.images.listing import list_sizes, look_at
from wellseg.data.io.images import image_size, write_png
from wellseg.errors import DataError

NAMES = re.compile(r"p[0-9]+")


def test_files_are_looked_at_at_the_same_time_and_answers_keep_their_order(tmp_path):
    paths = [tmp_path / str(n) for n in range(40)]
    together = threading.Barrier(8, timeout=10)  # opens only where so many wait in front of it

    def look(path):
        if int(path.name) < 8:
            together.wait()
        time.sleep(0.001 * (40 - int(path.name)) / 40)  # the last ones are ready first
        if path.name in ("7", "31"):
            raise DataError(f"{path.name} is odd")
        return int(path.name)

    answers = look_at(paths, look)
    assert [str(a) for a in answers] == [f"{n} is odd" if n in (7, 31) else str(n) for n in range(40)]
    assert isinstance(answers[7], DataError)
    assert look_at([], look) == []
    with pytest.raises(ZeroDivisionError):
        look_at(paths, lambda path: 1 // 0)  # a bug, which is nobody's finding


def test_sizes_by_name_and_every_fault_in_the_order_of_names(tmp_path):
    for name in ("p3.png", "p1.png", "p2.png", "odd.png", "p4.txt", ".DS_Store"):
        write_png(tmp_path / name, PICTURE)
    (tmp_path / "p0.png").write_bytes(b"")
    (tmp_path / "p2.png").write_bytes(b"<html>")
    sizes, problems = list_sizes(tmp_path, ".png", NAMES, image_size, "p<number>.png")
    assert list(sizes.items()) == [("p0", None), ("p1", (20, 31)), ("p2", None), ("p3", (20, 31))]
    whats = [(p.severity, p.what) for p in problems]
    assert whats == [
        ("error", "cannot read the picture p0.png"),
        ("error", "cannot read the picture p2.png"),
        ("warning", f"2 files of {tmp_path.name}/ left out: not named as the others"),
    ]
    assert "odd.png, p4.txt" in problems[2].where
    assert list_sizes(tmp_path / "none", ".png", NAMES, image_size, "")[1][0].what == "cannot list the folder none/"


def areas(**settings):
    return Stanford2D3DDataModule(train_areas=[1], validation_areas=[2], test_areas=[3], **settings)


@pytest.mark.parametrize(
    ("module", "settings"),
    [
        (AirbusDataModule, {"fake_size": [64, 64]}),
        (CarvanaDataModule, {"fake_size": [64, 96]}),
        (EchoCemDataModule, {}),
        (areas, {"fake_size": [48, 64]}),
    ],
)
def test_every_set_of_images_reads_its_headers_by_threads(tmp_path, monkeypatch, module, settings):
    made, here = module(root=str(tmp_path / "set"), fake=True, fake_images=8, **settings), threading.get_ident()
    threads = {}

    class Noting(listing.ThreadPoolExecutor):
        def map(self, look, paths):
            def noted(path):
                threads[path] = threading.get_ident()
                return look(path)

            return super().map(noted, paths)

    monkeypatch.setattr(listing, "ThreadPoolExecutor", Noting)
    images = made.read()
    assert len(images.samples) >= 6
    files = {sample: images.files(sample) for sample in images.samples}
    pictures = {path for paths in files.values() for path in paths if path.suffix != ".csv"}
    assert pictures <= threads.keys()
    assert here not in threads.values()
