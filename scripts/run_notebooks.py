"""Execute notebooks and write them back so that a second run changes nothing but what has changed.

    python scripts/run_notebooks.py                              # all of notebooks/, in place, on synthetic wells
    python scripts/run_notebooks.py explore                      # one of them
    WELLSEG_ROOT=FOLDER python scripts/run_notebooks.py explore --out FOLDER2      # on real wells, into another folder

In place, a notebook is only executed on wells made by code: outputs of real wells do not belong into the repository.
A notebook is left as it was when a cell fails, or when an output names a folder of this machine. Exit codes are those
of the package: 0 ok, 2 a mistake of the caller or of the notebook.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from wellseg.config import nearest
from wellseg.errors import WellsegError
from wellseg.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
TIMEOUT = 600
"""Seconds a cell may take."""


def choose(names: list[str]) -> list[Path]:
    """The notebooks of these names (with or without .ipynb), or all; raises WellsegError for one that is not there."""
    there = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
    stems = [name.removesuffix(".ipynb") for name in names] or list(there)
    for stem in stems:
        if stem not in there:
            close = nearest(stem, list(there)) or list(there)
            raise WellsegError(f"there is no notebook {stem!r}", where=str(FOLDER), fix=f"{' or '.join(close)}?")
    return [there[stem] for stem in stems]


def execute(path: Path) -> dict:
    """The notebook at `path` with fresh outputs, cleaned; the file is not touched. Raises WellsegError where a cell fails."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        # The history's data base below the home folder is locked by any other notebook, and nobody reads it. Warnings
        # of the kernel itself are of no use either: it listens on the loopback address alone, with a key.
        extra_arguments=["--HistoryManager.enabled=False", "--log-level=ERROR"],
        resources={"metadata": {"path": str(FOLDER)}},
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        why = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
        raise WellsegError(f"{path.name} failed; it is left as it was", where=str(path), why=why) from error
    nbformat.validate(notebook)
    return clean(json.loads(nbformat.writes(notebook)))


def clean(notebook: dict) -> dict:
    """The notebook without what differs from run to run or from machine to machine; outputs are kept.

    Consecutive pieces of one stream are joined: how a stream is cut depends on timing.
    """
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook["cells"]:
        cell["metadata"] = {k: v for k, v in cell["metadata"].items() if k == "tags"}
        if cell["cell_type"] != "code":
            continue
        joined: list[dict] = []
        for output in cell["outputs"]:
            last = joined[-1] if joined else {}
            if output["output_type"] == "stream" and last.get("name") == output["name"]:
                last["text"] = [*_lines(last["text"]), *_lines(output["text"])]
            else:
                joined.append(output)
        cell["outputs"] = joined
    return notebook


def machine_paths(notebook: dict) -> list[str]:
    """Folders of this machine that sources, outputs or metadata name, each with its cell; pictures are passed over."""
    folders = {
        ROOT,
        FOLDER,
        Path.cwd(),
        Path.home(),
        Path(sys.prefix),
        Path(sys.base_prefix),
        Path(tempfile.gettempdir()),
    }
    if real := os.environ.get("WELLSEG_ROOT"):
        folders |= {Path(real), Path(real).expanduser().resolve()}
    named = [str(folder) for folder in folders if len(folder.parts) > 1]
    # A folder's name ends where the next letter would make it another one: /root is not in /rooted.
    pattern = re.compile("|".join(rf"{re.escape(n)}(?![\w-])" for n in sorted(named, key=len, reverse=True)))
    found = []
    for number, cell in enumerate([{"metadata": notebook["metadata"]}, *notebook["cells"]]):
        for text in _texts(cell):
            found += [f"cell {number}: {match}" for match in pattern.findall(text)]
    return sorted(set(found))


def _texts(node: object, key: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _texts(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value, key)
    elif isinstance(node, str) and not key.startswith("image/"):
        yield node


def _lines(text: str | list[str]) -> list[str]:
    return text.splitlines(keepends=True) if isinstance(text, str) else text


def run(path: Path, out: Path) -> None:
    """Execute one notebook and write it to `out`, whole or not at all."""
    started = time.monotonic()
    notebook = execute(path)
    if found := machine_paths(notebook):
        why = "\n".join(found)
        raise WellsegError(
            f"{path.name} names folders of this machine; it is left as it was",
            why=why,
            fix="print names, not paths; fix what warns",
        )
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    write_atomically(out / path.name, lambda p: p.write_text(text, encoding="utf-8"))
    print(f"{path.name}: {time.monotonic() - started:.0f} s, {len(text.encode()) / 1000:,.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="notebooks, by name; all when left out")
    parser.add_argument("--out", type=Path, help="folder to write to; the notebook itself when left out")
    args = parser.parse_args()
    out = FOLDER if args.out is None else args.out
    try:
        if os.environ.get("WELLSEG_ROOT") and out.resolve() == FOLDER:
            raise WellsegError(
                "outputs of real wells are not written into notebooks/",
                where="WELLSEG_ROOT is set",
                fix="--out FOLDER writes them elsewhere; unset WELLSEG_ROOT for synthetic wells",
            )
        if root := os.environ.get("WELLSEG_ROOT"):
            # The kernel runs in notebooks/, where a relative name would mean another folder.
            os.environ["WELLSEG_ROOT"] = str(Path(root).expanduser().resolve())
        # One thread: sums over several differ in their last digits from run to run.
        os.environ["OMP_NUM_THREADS"] = "1"
        for path in choose(args.names):
            run(path, out)
    except WellsegError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
