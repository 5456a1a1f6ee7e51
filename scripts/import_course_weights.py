"""Published weights of the course's flexible U-Net -> a wellseg artefact with the same answers.

    python scripts/import_course_weights.py IN.npz OUT.safetensors

IN holds one array per weight under the course's key names; nothing in it is unpickled. The network is
UNetFlex(padding=turns) with the sizes that the shapes tell.
"""

import argparse
import sys
import zipfile
from pathlib import Path

import numpy as np

from wellseg import artifact
from wellseg.data.normalize import Normalization
from wellseg.errors import ArtifactError, WellsegError
from wellseg.models.course import course_network


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz by name. Raises ArtifactError where it is not one or would have to be unpickled."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(
            f"cannot read weights from {path.name}",
            where=str(path),
            why=str(error),
            fix="expected an .npz of plain float arrays",
        ) from error


def import_weights(source: Path, target: Path) -> None:
    """Write the artefact `target` for the weights in `source`."""
    network, arguments = course_network(read_arrays(source))
    metadata = {
        # The course fed recorded values as they are and decided at probability one half.
        "normalization": Normalization().as_dict(),
        "threshold": 0.5,
        "classes": ["intact", "defect"],
        "input": {"window": 36, "widths": [36], "layout": "single", "channels": 1},
        "scores": {},
        "source": source.name,
    }
    artifact.save(target, network, arguments, metadata)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="IN", type=Path, help="an .npz of weights under the course's key names")
    parser.add_argument("target", metavar="OUT", type=Path, help="the artefact to write")
    arguments = parser.parse_args()
    try:
        import_weights(arguments.source, arguments.target)
        print(f"wrote {arguments.target}")
    except WellsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
