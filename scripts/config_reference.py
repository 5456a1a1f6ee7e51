"""Print the reference of conf/ as Markdown: commands, groups, choices and keys. usage: config_reference.py [CONF]"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from wellseg import schema

CONF = Path(__file__).resolve().parents[1] / "conf"


def reference(root: Path) -> str:
    """Returns the Markdown reference of the configuration in `root`."""
    lines = [
        "# Configuration reference",
        "",
        "Commands take `key=value`, `group=choice` and `group.key=value`. The comments of `conf/` are the descriptions here.",
        "",
        "## Commands",
        "",
    ]
    for name in schema.commands(root):
        lines += _command(root, name)
    for group in schema.groups(root):
        lines += [f"## Group `{group}`", "", *_users(root, group)]
        names = schema.choices(root, group)
        summaries = [(f"`{group}={name}`", schema.choice(root, group, name).comment) for name in names]
        lines += [*_table(("choice", "description"), summaries), ""]
        for name in names:
            lines += _choice(schema.choice(root, group, name))
    return "\n".join(lines).rstrip() + "\n"


def _command(root: Path, name: str) -> list[str]:
    made = schema.command(root, name)
    lines = [f"### `{name}`", "", " ".join(filter(None, [made.comment, made.details])), ""]
    if made.example:
        lines += ["```bash", made.example, "```", ""]
    folders = [key for key in made.hydra if key.comment]
    lines += _keys([*made.keys, *folders], "")
    if made.defaults:
        rows = [(f"`{group}`", "" if chosen == "null" else f"`{chosen}`") for group, chosen in made.defaults.items()]
        lines += [*_table(("group", "default choice"), rows), ""]
    return lines


def _users(root: Path, group: str) -> list[str]:
    commands = [f"`{name}`" for name in schema.commands(root) if group in schema.defaults_of(root, name)]
    return [f"Group of {', '.join(commands)}.", ""] if commands else []


def _choice(choice: schema.Choice) -> list[str]:
    lines = [f"### `{choice.group}={choice.name}`", "", " ".join(filter(None, [choice.comment, choice.details])), ""]
    if choice.bases:
        lines += [f"Based on {', '.join(f'`{choice.group}={base}`' for base in choice.bases)}.", ""]
    if choice.selects:
        lines += ["Selects " + ", ".join(f"`{group}={name}`" for group, name in choice.selects.items()) + ".", ""]
    prefix = "" if choice.group == schema.EXPERIMENT else f"{choice.group}."
    # In an experiment an outer key is a group, which has no value of its own.
    shown = [key for key in choice.keys if key.text or choice.group != schema.EXPERIMENT]
    return [*lines, *_keys(shown, prefix)]


def _keys(keys: Iterable[schema.Key], prefix: str) -> list[str]:
    rows = [
        (f"`{prefix}{key.name}`", f"`{key.text}`" if key.text else "", key.comment + (" (path)" if key.path else ""))
        for key in keys
    ]
    return [*_table(("key", "default", "description"), rows), ""] if rows else []


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return ["| " + " | ".join(row) + " |" for row in cells]


if __name__ == "__main__":
    sys.stdout.write(reference(Path(sys.argv[1]) if len(sys.argv) > 1 else CONF))
