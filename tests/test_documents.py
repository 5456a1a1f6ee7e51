"""What README, docs/ and examples/ show is what runs.

The documents that a newcomer follows are executed from `git clone` on, in one shell each; commands, groups, choices and keys
on all other pages are looked up in conf/.
"""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents import EXECUTED, blocks, script
from places import ROOT

from wellseg import config

FOLLOWED = [["README.md"], ["docs/get-started.md", "examples/README.md"]]
"""Documents by shell: the examples run in the environment that "Get started" makes."""

PAGES = sorted(
    p.relative_to(ROOT).as_posix()
    for p in [ROOT / "README.md", ROOT / "examples" / "README.md", *(ROOT / "docs").rglob("*.md")]
    if "generated" not in p.parts
)
INHERITED = (
    "ARGS",
    "MAKEFLAGS",
    "MAKELEVEL",
    "MFLAGS",
    "MODEL",
    "OMP_NUM_THREADS",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "WELLSEG_ROOT",
)
"""What `make test-all` and its tests set, and a newcomer's shell does not."""


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [page for chain in FOLLOWED for page in chain])
def test_every_command_of_a_followed_document_is_executed(page):
    found = blocks(read(page))
    assert any(b.language == "sh" for b in found)
    assert [f"line {b.line}" for b in found if b.language not in EXECUTED and b.looks_like_a_command] == []
    assert [f"line {b.line}" for b in found if not b.language] == [], "a block without a language"


def test_blocks_are_found_and_commands_recognised():
    text = "a\n```sh\nmake x\n```\n\n```text\n$ wellseg train a=b\n```\n- b\n\n  ```{toctree}\n  c\n  ```\n```\nmake\n```\n"
    found = blocks(text)
    assert [(b.language, b.line) for b in found] == [("sh", 2), ("text", 6), ("{toctree}", 11), ("", 14)]
    assert [b.looks_like_a_command for b in found] == [True, True, False, True]
    assert script("x.md", text) == "echo '== x.md:2'\nmake x\n"
    assert script("y.md", "```python\nprint(1)\n```\n") == "echo '== y.md:1'\npython - <<'PYTHON'\nprint(1)\nPYTHON\n"


def commands(text):
    """(command, arguments) of every call of wellseg in blocks of shell and in `inline code`."""
    lines = [line for b in blocks(text) if b.language == "sh" for line in b.code.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S))
    for line in lines:
        match = re.match(r"(?:python -m wellseg\.|wellseg )(\w+)(?= |$)(.*)", line)
        if match:
            yield match[1], shlex.split(match[2], comments=True)


def test_commands_are_found():
    text = "`wellseg train a=1` x `wellseg.load` y\n```sh\npython -m wellseg.predict input='a b' # c\nmake train\n```\n"
    assert list(commands(text)) == [("predict", ["input=a b"]), ("train", ["a=1"])]


@pytest.mark.parametrize("page", PAGES)
def test_commands_on_a_page_exist_and_take_their_arguments(page, monkeypatch):
    monkeypatch.chdir(ROOT)  # from where examples name their folders
    for command, arguments in commands(read(page)):
        if command in ("COMMAND", "X"):  # stand for any
            continue
        given = [a for a in arguments if a not in ("...", "--help", "-m")]
        multirun = "-m" in arguments
        overrides = [a.split(",")[0] if multirun and "[" not in a else a for a in given]
        if command == "slurm":  # hands arguments of train on
            own = config.load("slurm")
            config.load("train", [o for o in overrides if o.split("=")[0] not in own and not o.startswith("run=")])
            overrides = [o for o in overrides if o.split("=")[0] in own]
        config.load(command, overrides)


def keys_of(group):
    """Keys of all choices of a group."""
    from omegaconf import OmegaConf

    found = set()
    for choice in config.choices(group):
        node = OmegaConf.load(config.folder() / group / f"{choice}.yaml")
        found |= set(config.flat_keys(OmegaConf.to_container(node, resolve=False)))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_choices_and_keys_on_a_page_exist(page):
    known = {group: keys_of(group) for group in config.groups()}
    for code in re.findall(r"`([\w.]+=[^`\n]*)`", read(page)):
        for argument in code.split(" "):
            key, _, value = argument.partition("=")
            group, _, rest = key.partition(".")
            if group not in known:
                continue
            if rest:
                assert rest in known[group] or key in ("data.fake", "data.root"), f"{page}: there is no key {key}"
            elif re.fullmatch(r"[a-z]\w*", value) and value != "dilated_stack":  # the one of examples/own_model
                assert value in config.choices(group), f"{page}: there is no {argument}"


@pytest.mark.parametrize("page", PAGES)
def test_programs_on_a_page_can_be_parsed(page):
    for block in blocks(read(page)):
        if block.language == "python":
            ast.parse(block.code)


def test_the_readme_is_a_landing_page():
    assert len(read("README.md").splitlines()) <= 120


def shell():
    """The environment of a newcomer's shell, in which `make test` runs one file of tests: CI runs all of them itself."""
    kept = {k: v for k, v in os.environ.items() if k not in INHERITED and not k.startswith(("PYTEST_", "COV_"))}
    path = os.pathsep.join(p for p in kept["PATH"].split(os.pathsep) if Path(p) != Path(sys.prefix, "bin"))
    return kept | {"PATH": path, "WELLSEG": str(ROOT), "PYTEST_ADDOPTS": "tests/test_files.py"}


@pytest.mark.slow
@pytest.mark.parametrize("chain", FOLLOWED, ids=" ".join)
def test_a_newcomer_who_follows_the_documents_succeeds(chain, tmp_path):
    environment = shell()
    for program in ("git", "make", "python3.11"):
        if shutil.which(program, path=environment["PATH"]) is None:
            pytest.skip(f"the documents use {program}, which is not on this machine")
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    lines = "set -eu -o pipefail\n" + "".join(script(page, read(page)) for page in chain) + "echo '== end'\n"
    log = tmp_path / "log.txt"
    with log.open("wb") as stream:
        done = subprocess.run(
            ["bash", "-c", lines],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            check=False,
            timeout=1200,
        )
    printed = log.read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0, printed[-4000:]
    assert printed.rstrip().endswith("== end")
    expected = [f"== {page}:{b.line}" for page in chain for b in blocks(read(page)) if b.language in EXECUTED]
    assert [line for line in printed.splitlines() if line in expected] == expected


@pytest.mark.slow
def test_the_pages_are_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="the pages need the extra docs")
    build = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-b",
        "html",
        str(ROOT / "docs"),
        str(tmp_path / "html"),
    ]
    done = subprocess.run(build, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    for page in (
        "index",
        "get-started",
        "how-to/own-model",
        "reference/configuration",
        "reference/python",
        "benchmarks",
    ):
        assert (tmp_path / "html" / f"{page}.html").is_file(), page
    reference = (tmp_path / "html" / "reference" / "configuration.html").read_text(encoding="utf-8")
    for group in config.groups():
        assert group in reference, group
