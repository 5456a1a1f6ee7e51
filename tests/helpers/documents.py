"""Blocks of code in Markdown: what documents show, and what a reader would run of it."""

import re
from dataclasses import dataclass

EXECUTED = ("sh", "python")
"""Languages of blocks that a test executes: a shell's own lines, and a program for `python -`."""

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^`\n]*)\n(?P<code>.*?)^(?P=indent)(?P=fence) *$", flags=re.M | re.S
)
_PROGRAMS = r"python[\d.]*|pip|make|wellseg|git|cd|bash|sh|export|source|\.|cp|cc|jupyter"
_COMMAND = re.compile(rf"^ *(?:\$ |[A-Z_]+=\S+ )*(?:{_PROGRAMS}) ", flags=re.M)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language ("" without one, "{name}" of a directive), its code, and its line in the document."""

    language: str
    code: str
    line: int

    @property
    def looks_like_a_command(self) -> bool:
        return bool(_COMMAND.search(self.code)) or self.code.strip() == "make"


def blocks(text: str) -> list[Block]:
    """Returns the fenced blocks of a Markdown text, in order."""
    return [
        Block(m["info"].strip().split(" ")[0], m["code"], text.count("\n", 0, m.start()) + 1)
        for m in _FENCE.finditer(text)
    ]


def script(name: str, text: str) -> str:
    """Returns the shell script that runs the executed blocks of document `name` in order, announcing each by its line."""
    parts = []
    for block in blocks(text):
        if block.language in EXECUTED:
            parts.append(f"echo '== {name}:{block.line}'")
            parts.append(
                f"python - <<'PYTHON'\n{block.code}PYTHON" if block.language == "python" else block.code.rstrip()
            )
    return "\n".join(parts) + "\n"
