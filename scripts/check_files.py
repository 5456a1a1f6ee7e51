"""Checks files before they are committed: none is large, and notebooks were executed from top to bottom without a fault.

Usage: python scripts/check_files.py FILE...; prints one line per finding and exits with 1 where there is any.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

LARGEST = 2**20
"""Bytes of the largest file that a clone should carry for ever; real data and models stay outside the repository."""


def findings(path: Path) -> Iterator[str]:
    """Yields what is wrong with one file, each as a sentence that names it. Links and folders are passed over."""
    if path.is_symlink() or not path.is_file():
        return
    if (size := path.stat().st_size) > LARGEST:
        yield f"{path} has {size:,} bytes, more than {LARGEST:,}; keep data and models outside the repository"
    if path.suffix == ".ipynb":
        yield from (f"{path} {fault}; run `make notebooks`" for fault in _notebook_faults(path))


def _notebook_faults(path: Path) -> Iterator[str]:
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        for number, cell in enumerate(code, start=1):
            if cell["execution_count"] != number:
                yield f"was not executed in order: code cell {number} has the number {cell['execution_count']}"
            for output in cell["outputs"]:
                if output["output_type"] == "error" or output.get("name") == "stderr":
                    yield f"holds an error or a warning in the output of code cell {number}"
    except (ValueError, KeyError, TypeError) as error:
        yield f"is not a notebook ({error!r})"


def main(names: list[str]) -> int:
    found = [line for name in names for line in findings(Path(name))]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
