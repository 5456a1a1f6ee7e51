"""Configuration of Sphinx: `make docs` builds these pages, with warnings as errors and without network.

Pages that repeat what another file already says are written here at build time, below docs/generated/, which git ignores:
the configuration groups and commands from conf/, and the benchmark pages.
"""

import inspect
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
GENERATED = DOCS / "generated"

project = "wellseg"
author = "the wellseg maintainers"
version = release = metadata.version("wellseg")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# Includes and generated pages bring their own level of headings.
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"wellseg {release}"
html_show_sourcelink = False
html_show_copyright = False
# Fonts and scripts come with the theme: pages open from disk, on a machine without network.
html_theme_options = {"navigation_with_keys": True}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False

_ROW = re.compile(r"\s*[\w.=*\"]+(?:, [\w.]+)* {2,}\S")  # of a table in plain text: a name, spaces, what it is
_SECTION = re.compile(r"\s*(Args|Returns|Raises|Yields|Attributes|Example|Examples|Note|Notes|References|Source):\s*$")


def literal_text(lines: list[str]) -> list[str]:
    """Returns a docstring that reStructuredText shows as it was written.

    Docstrings are plain text with `code` in single backquotes and, here and there, a table. Characters that reStructuredText
    would interpret are escaped, backquotes doubled, and indented blocks and tables become literal blocks; sections of the
    Google convention are left to napoleon.
    """
    out: list[str] = []
    table = False
    literal: int | None = None  # indentation of the paragraph that a literal block belongs to
    section: int | None = None  # indentation of the header of the current section
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            out.append("")
            table = False
            continue
        if table or (literal is None and section is None and not (out and out[-1]) and _ROW.match(line)):
            if not table:
                out += [" " * indent + "::", ""]
            table = True
            out.append("   " + line)
            continue
        if section is not None and indent <= section:
            section = None
        if literal is not None and indent <= literal:
            literal = None
            if out and out[-1]:
                out.append("")
        if _SECTION.match(line):
            section = indent
            if out and out[-1]:
                out.append("")
            out.append(line)
            continue
        if literal is None and section is None:
            above = next((text for text in reversed(out) if text.strip()), "")
            bullet = above.lstrip().startswith("- ")  # whose text continues
            if indent > len(above) - len(above.lstrip()) + 2 * bullet and above.strip():
                literal = len(above) - len(above.lstrip())
                out += ["", " " * literal + "::", ""]
        out.append(line if literal is not None else _escaped(line))
    return out


def _escaped(line: str) -> str:
    parts = re.split(r"(`+[^`]+`+)", line)
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = f"``{part.strip('`')}``"
        else:
            parts[i] = re.sub(r"([*|\\])", r"\\\1", re.sub(r"(?<=\w)_(?!\w)", r"\\_", part))
    return "".join(parts)


_PROPERTIES: dict[str, list[str]] = {}


def _before_napoleon(app, what, name, obj, options, lines) -> None:
    if not (inspect.isclass(obj) and obj.__doc__ is None):
        lines[:] = literal_text(lines)
    if what == "property":
        _PROPERTIES[name] = list(lines)


def _after_napoleon(app, what, name, obj, options, lines) -> None:
    """Puts back the text of properties, of which napoleon takes what precedes a colon for a type."""
    if what == "property":
        lines[:] = _PROPERTIES[name]


def write_benchmarks() -> None:
    """Copies benchmarks/X/README.md to generated/benchmarks/X.md, with links that fit there.

    The index of the folder is docs/benchmarks.md.
    """
    folder = GENERATED / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    pages = {path: path.parent.name for path in sorted((ROOT / "benchmarks").glob("*/README.md"))}

    def link(match: re.Match, source: Path) -> str:
        mark, text, target = match.groups()
        path, _, anchor = target.partition("#")
        there = (source.parent / path).resolve()
        if "://" in target or not path:
            return match.group()
        if there in pages:
            return f"[{text}]({pages[there]}.md{'#' + anchor if anchor else ''})"
        if mark and there.is_file():  # a picture, read from where it lies
            return f"![{text}](../../../{there.relative_to(ROOT).as_posix()})"
        return f"`{there.relative_to(ROOT).as_posix()}`" if there.is_relative_to(ROOT) else text

    for source, page in pages.items():
        text = source.read_text(encoding="utf-8")
        text = re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", lambda m, source=source: link(m, source), text)
        _write(folder / f"{page}.md", text)
    for path in folder.glob("*.md"):
        if path.stem not in pages.values():
            path.unlink()


def write_reference() -> None:
    """Writes generated/configuration.md from conf/."""
    script = ROOT / "scripts" / "config_reference.py"
    made = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, encoding="utf-8", check=False)
    if made.returncode:
        raise RuntimeError(f"{script} failed:\n{made.stderr}")
    _write(GENERATED / "configuration.md", made.stdout)


def _write(path: Path, text: str) -> None:
    """Leaves an unchanged page alone, so that a second build reads nothing again."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def setup(app) -> None:
    GENERATED.mkdir(exist_ok=True)
    write_benchmarks()
    write_reference()
    # Napoleon has the priority 500.
    app.connect("autodoc-process-docstring", _before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", _after_napoleon, priority=600)
