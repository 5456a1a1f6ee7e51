"""Files at the root: one version everywhere, the licence's own text, links that lead somewhere, nothing of this machine."""

import hashlib
import importlib.util
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import wellseg

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
APACHE_2_0 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""SHA-256 of the licence's text as its authors publish it, appendix included."""

# Spelled so that this file does not match itself; a name must follow the folder, so that other tests may name the folders.
MACHINE = re.compile(r"(?<![\w.~-])/(?:work|root|home)/\w")
HOSTS = re.compile(r"\b(?:pypi|pythonhosted|npmjs|debian|golang|crates|anaconda|download\.pytorch)[.](?:org|com|io)\b")


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def releases():
    """Version and date of every release in the changelog, newest first."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", text, flags=re.M)


def citation():
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tracked():
    """Files that git tracks."""
    try:
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no clone: git lists no files here")
    files = [path for name in listing.decode().split("\0") if name and (path := ROOT / name).is_file()]
    assert ROOT / "pyproject.toml" in files
    return files


@pytest.fixture(scope="module")
def check_files():
    spec = importlib.util.spec_from_file_location("check_files", ROOT / "scripts" / "check_files.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_version_in_metadata_changelog_citation_and_package():
    version = project()["version"]
    assert (version, citation()["date-released"]) == releases()[0]
    assert citation()["version"] == version
    assert wellseg.__version__ == version, "the installed metadata are older than pyproject.toml: run `make setup`"


def test_the_changelog_lists_releases_newest_first():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = [(tuple(map(int, version.split("."))), date) for version, date in releases()]
    assert len(found) == len(re.findall(r"^## \[\d", text, flags=re.M)) >= 2
    assert found == sorted(found, reverse=True)
    assert text.index("## [Unreleased]") < text.index(f"## [{releases()[0][0]}]")


def test_the_licence_is_the_apache_licence():
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2_0
    assert project()["license"] == citation()["license"] == "Apache-2.0"
    assert project()["license-files"] == ["LICENSE"]


def test_the_citation_has_what_the_format_requires():
    record = citation()
    assert record["cff-version"] == "1.2.0"
    assert record["type"] == "software"
    assert record.keys() >= {"message", "title", "abstract", "authors", "keywords", "references"}
    assert [a["name"] for a in record["authors"]] == [a["name"] for a in project()["authors"]]
    for reference in record["references"]:
        assert reference.keys() >= {"type", "title", "authors", "year"}, reference
    assert {r["type"] for r in record["references"]} == {"data", "conference-paper"}


def test_metadata_name_no_address():
    assert "urls" not in project()
    assert "://" not in json.dumps(project())


def links(text):
    """Targets of a Markdown text's links and pictures, but for those on the web and within the page."""
    found = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.S))
    return [target.partition("#")[0] for target in found if not re.match(r"[a-z]+:|#", target)]


def test_links_are_found():
    text = "[a](x.md) ![b](f/y.png) [c](z.md#part) [d](https://e.org/f.md) [e](#part)\n```\n[f](no.md)\n```"
    assert links(text) == ["x.md", "f/y.png", "z.md"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_relative_links_lead_to_files(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    missing = [target for target in links(text) if not (ROOT / target).exists()]
    assert not missing


def texts(files):
    for path in files:
        try:
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # pictures and weights
            continue


@pytest.mark.parametrize("pattern", [MACHINE, HOSTS], ids=["paths of this machine", "hosts of packages"])
def test_no_tracked_file_names(tracked, pattern):
    found = [f"{name}: {match[0]}" for name, text in texts(tracked) if (match := pattern.search(text))]
    assert not found


def test_names_of_machines_are_found():
    slash = "/"
    assert MACHINE.search(f"see {slash}home{slash}me/x")
    assert MACHINE.search(f"'{slash}work{slash}main'")
    assert not MACHINE.search("frame/work/x ./home/x ~/work/x")
    assert HOSTS.search("files." + "pythonhosted" + ".org")
    assert not HOSTS.search("pypi, keepachangelog.com")


def test_tracked_files_are_small_and_notebooks_executed(tracked, check_files):
    assert [line for path in tracked for line in check_files.findings(path)] == []


def notebook(*cells):
    return json.dumps({"cells": [{"cell_type": "code", "execution_count": n, "outputs": o} for n, o in cells]})


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.ipynb", notebook((1, []), (2, [{"output_type": "stream", "name": "stdout"}])), None),
        ("a.ipynb", notebook((1, []), (3, [])), "not executed in order"),
        ("a.ipynb", notebook((None, [])), "not executed in order"),
        ("a.ipynb", notebook((1, [{"output_type": "error"}])), "error or a warning in the output of code cell 1"),
        ("a.ipynb", notebook((1, [{"output_type": "stream", "name": "stderr"}])), "error or a warning"),
        ("a.ipynb", "{}", "not a notebook"),
        ("a.bin", "x" * 2**20, None),
        ("a.bin", "x" * (2**20 + 1), "1,048,577 bytes"),
    ],
)
def test_large_files_and_faulty_notebooks_are_found(tmp_path, check_files, capsys, name, content, found):
    (tmp_path / name).write_text(content)
    assert check_files.main([str(tmp_path / name)]) == (found is not None)
    assert (found or "") in capsys.readouterr().out


def test_hooks_are_local_and_run_what_is_installed():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    assert [hook["id"] for hook in repository["hooks"]] == ["ruff-check", "ruff-format", "check-files"]
    for hook in repository["hooks"]:
        program, *arguments = shlex.split(hook["entry"])
        assert hook["language"] == "system"
        assert program.startswith(".venv/bin/")
        assert [a for a in arguments if a.endswith(".py") and not (ROOT / a).is_file()] == []


def test_the_locked_versions_satisfy_the_bounds_and_say_how_they_are_made():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    head, locked = [x for x in lines if x.startswith("#")], [x for x in lines if x and not x.startswith("#")]
    assert lines == head + locked
    assert "pip freeze" in "\n".join(head)
    versions = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in locked)}
    assert len(versions) == len(locked)
    for text in [*project()["dependencies"], *(d for e in project()["optional-dependencies"].values() for d in e)]:
        wanted = Requirement(text)
        if wanted.name != "wellseg":
            assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), text
