"""The smallest set in the layout of the Airbus challenge, for tests of how it is read."""

import numpy as np
from PIL import Image

from wellseg.data.datasets.airbus.module import read_airbus

LABELS = "train_ship_segmentations_v2.csv"
GOOD = ("a.jpg,", "b.jpg,1 3", "c.jpg,1 3 9 3", "c.jpg,20 2", "d.jpg,")


def small_set(root):
    """Four images of 8 x 6 and two of the test part, with the rows GOOD; and the function that writes other rows."""
    for folder, names in (("train_v2", "abcd"), ("test_v2", "xy")):
        (root / folder).mkdir()
        for name in names:
            noise = np.random.default_rng(ord(name)).integers(0, 255, (8, 6, 3)).astype(np.uint8)
            Image.fromarray(noise).save(root / folder / f"{name}.jpg")

    def write(*rows, header="ImageId,EncodedPixels", ending="\n"):
        (root / LABELS).write_text(ending.join([header, *rows, ""]), newline="")
        return root

    write(*GOOD)
    return write


def found(root, **settings):
    return [(p.severity, p.what, p.where) for p in read_airbus(root, **settings).problems]
