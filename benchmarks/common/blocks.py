"""Fills the blocks of a page whose other text is written by hand, and writes their tables."""

import re
from collections.abc import Iterable, Mapping, Sequence


def fill(page: str, blocks: Mapping[str, str], name: str) -> str:
    """`page` with each block between its `<!-- begin x -->` and `<!-- end x -->`; the rest as it was.

    name: the page's file, for the message where it has lost a marker.
    """
    for block, text in blocks.items():
        pattern = re.compile(rf"(<!-- begin {block} -->\n).*?(<!-- end {block} -->)", re.DOTALL)
        if not pattern.search(page):
            raise SystemExit(f"{name} has lost its markers 'begin {block}' and 'end {block}'")
        page = pattern.sub(lambda m, t=text: f"{m[1]}{t}\n{m[2]}", page)
    return page


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, numbers to the right; floats with three places, None as a dash."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
