"""What --help of every command says, read from conf/: neither Hydra nor torch is needed, so that the answer is quick."""

from collections.abc import Iterable, Sequence

from wellseg import schema
from wellseg.cli.commands import COMMANDS
from wellseg.overrides import key_of

_WIDTH = 118


def help_text(name: str, overrides: Sequence[str] = ()) -> str:
    """Returns groups, choices, and all keys with their comments.

    Of every group the keys of the choice in `overrides` (group=choice) are listed, or of the one that the experiment there
    selects, else those of its default.
    """
    root, command = schema.folder(), COMMANDS[name]
    described = schema.command(root, name)
    selected = {key_of(o): o.partition("=")[2] for o in overrides}
    lines = [f"python -m wellseg.{name} key=value ...      {command.purpose}", ""]
    if described.defaults:
        lines.append("Groups (group=choice; * is the default):")
    for group, default in described.defaults.items():
        offered = [f"{c}*" if c == default else c for c in schema.choices(root, group)]
        lines.append(_wrapped(f"  {group:<12}", offered))
    lines += [*([""] if described.defaults else []), "Keys (key=value):", *_keys(described.keys)]
    if described.defaults:
        lines += ["", "Keys of the groups (group.key=value); --help after group=choice lists those of the choice:"]
    keys = schema.keys(root, name, selected).values()
    for group in described.defaults:
        lines += _keys(key for key in keys if key.name.startswith(f"{group}."))
    lines += [
        "",
        *(
            ["  -m a=1,2 b=x,y              a sweep: one job for each combination, and a summary"]
            if not command.alone
            else []
        ),
        *(["  hydra.run.dir=DIR           where everything is written"] if command.key == "hydra.run.dir" else []),
        "  --cfg job                   print the composed configuration and stop",
    ]
    return "\n".join([*lines, "", f"Example: {described.example}"] if described.example else lines)


def _keys(keys: Iterable[schema.Key]) -> list[str]:
    return [f"  {f'{key.name}={key.text}':<38} {key.comment}" for key in keys]


def _wrapped(head: str, words: Sequence[str]) -> str:
    lines, line = [], head
    for word in words:
        if len(line) + len(word) + 1 > _WIDTH:
            lines.append(line)
            line = " " * len(head)
        line += f"{word} "
    return "\n".join([*lines, line.rstrip()])
