"""Refuses predictions that would replace what they are made of."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from wellseg.errors import ConfigError


def check_replaced(inputs: Sequence[str], outputs: Sequence[Path], pages: Sequence[Path]) -> None:
    """Raises ConfigError where an output would replace an input, or lie in it or around it; links are followed.

    Args:
        inputs: paths of inputs and of model files.
        outputs: files that will be written.
        pages: starts of the names of pages, to which _0001.png and so on is added.
    """
    real = {os.path.realpath(path): path for path in inputs}
    around: dict[str, str] = {}
    for place, path in real.items():
        while (place := os.path.dirname(place)) not in around:
            around[place] = path
    numbered = {re.sub(r"_\d{4,}\.png$", "", place): path for place, path in real.items() if place.endswith(".png")}
    planned = [(output, (real, around)) for output in outputs]
    for output, taken in (*planned, *((page, (numbered,)) for page in pages)):
        place = os.path.realpath(output)
        found = next((names[place] for names in taken if place in names), None)
        while not found and (parent := os.path.dirname(place)) != place:
            place = parent
            found = real.get(place)
        if found:
            raise ConfigError("an output would replace its input", where=found, why=str(output), fix="another output=")
