"""Words that this project does not use in what users read; CONTRIBUTING.md has plainer ones for many.

Documents and the configuration hold none. In the package, whose strings are older than this rule, each folder has an
allowance. It may only shrink: lower it when strings are rewritten, never raise it for new ones.
"""

import ast
import re
from collections.abc import Iterator

import pytest
from places import ROOT, SOURCE

_WORDS = [
    *(r"told", r"dealt", r"mend(?:s|ed|ing)?", r"hand(?:s|ed|ing)?\s+in", r"be\s+had", r"none\s+of\s+a"),
    *(r"beside", r"as\s+they\s+are", r"go(?:es)?\s+on", r"stands?(?!\s+for\b)"),
]
FORBIDDEN = re.compile(rf"\b(?:{'|'.join(_WORDS)})\b", flags=re.I)

_PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(path for path in (ROOT / "examples").rglob("*") if path.suffix in (".md", ".py", ".yaml")),
]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in _PAGES
    if path.name != "CONTRIBUTING.md" and "generated" not in path.parts  # the former lists words to avoid
)

ALLOWED: dict[str, int] = {
    "cli": 3,
    "commands": 1,
    "export": 3,
    "inference": 12,
    "slurm.py": 1,
    "training": 3,
}
"""Strings with a forbidden word by top-level module or folder of src/wellseg."""


def offences(text: str) -> list[str]:
    """Returns "line: word" of every forbidden word of a text."""
    return [f"{text.count(chr(10), 0, m.start()) + 1}: {m[0]}" for m in FORBIDDEN.finditer(text)]


def strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, text) of every string of a module that has a space: docstrings and messages, not names."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values),
            )
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and " " in node.value
            and id(node) not in inside
        ):
            yield node.lineno, node.value


def package_offences() -> dict[str, list[str]]:
    """By top-level module or folder of the package: "file:line: word" of every string with a forbidden word."""
    found: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        top = path.relative_to(SOURCE).parts[0]
        for line, text in strings(ast.parse(path.read_text(encoding="utf-8"))):
            match = FORBIDDEN.search(text)
            if match:
                found.setdefault(top, []).append(f"{path.relative_to(ROOT)}:{line}: {match[0]}")
    return found


@pytest.mark.parametrize(
    "text", ["You are told", "what goes\non", "mend it", "be had", "It stands", "handed in", "As they are"]
)
def test_forbidden_words_are_found(text):
    assert len(offences(f"x\n{text}\n")) == 1


def test_only_words_are_found():
    assert offences("recommend, understand, standard, besides, a capital stands for any name, a grand stand-in") == [
        "1: stand"
    ]


def test_strings_of_a_module_are_found():
    tree = ast.parse('"""Doc told."""\nx = f"a {x} mend"\ny = "told"\ndef f():\n    "in here"\n')
    assert sorted(strings(tree)) == [(1, "Doc told."), (2, "a {} mend"), (5, "in here")]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_use_plain_words(name):
    assert offences((ROOT / name).read_text(encoding="utf-8")) == []


def test_comments_of_the_configuration_use_plain_words():
    found = []
    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found += [f"{path.relative_to(ROOT)}:{number}: {m[0]}" for m in FORBIDDEN.finditer(line.partition("#")[2])]
    assert found == []


def test_the_package_has_no_new_strings_with_forbidden_words():
    more = {top: lines for top, lines in package_offences().items() if len(lines) > ALLOWED.get(top, 0)}
    listed = "\n".join(line for lines in more.values() for line in lines)
    assert not more, f"more strings with forbidden words than allowed; one of these is new:\n{listed}"
