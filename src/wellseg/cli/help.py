"""What --help of every command says."""

import re
from collections.abc import Sequence

from wellseg import config

COMMANDS = {
    "train": "train a model and leave a run folder",
    "evaluate": "score a run or a model file",
    "predict": "find the defects in patches and whole wells",
    "quantize": "store a model in fewer bits, and report what that costs",
    "export": "write a model for another engine, checked against its own",
    "check": "list everything that is wrong with a data set",
    "preview": "show images, labels and augmentations as a picture",
    "slurm": "write a cluster job that trains as a run did",
}


def help_text(name: str, overrides: Sequence[str] = ()) -> str:
    """What can be set, read from conf/ as text: neither Hydra nor torch is needed, so that the answer is quick.

    Of every group the keys of the choice in `overrides` (group=choice) are listed, or of the one that the experiment there
    makes, else those of its default.
    """
    text = (config.folder() / f"{name}.yaml").read_text(encoding="utf-8")
    defaults = config.defaults_of(name)
    lines = [
        f"python -m wellseg.{name} key=value ...      {COMMANDS[name]}",
        "",
    ]
    if defaults:
        lines.append("Groups (group=choice; * is the default):")
    for group in defaults:
        offered = [f"{c}*" if c == defaults[group] else c for c in config.choices(group)]
        lines.append(_wrapped(f"  {group:<12}", offered))
    lines += [*([""] if defaults else []), "Keys (key=value):"]
    for line in text.split("\nhydra:")[0].splitlines():
        if found := re.match(r"^(\w+): (.*?)(?:\s+# (.*))?$", line):
            key, value, comment = found.groups()
            lines.append(f"  {key}={value}".ljust(27) + f" {comment or ''}")
    if defaults:
        lines += ["", "A group's keys are set as group.key=value; --help after group=choice lists those of the choice:"]
    asked = dict(o.partition("=")[::2] for o in overrides)
    asked = {**_choices_of(asked.pop("experiment", "")), **asked}
    for group, choice in defaults.items():
        chosen = asked[group] if asked.get(group) in config.choices(group) else choice
        if names := [f"{group}.{key}" for key in _keys_of(group, chosen)]:
            lines.append(_wrapped("  ", names))
    example = re.match(r"# (python .*)", text)
    sweep = ["  -m a=1,2 b=x,y              a sweep: one job for each combination, and a summary"]
    lines += [
        "",
        *(sweep if name != "predict" else []),
        *([] if "\noutput:" in text else ["  hydra.run.dir=DIR           where everything is written"]),
        "  --cfg job                   print the composed configuration and stop",
    ]
    return "\n".join([*lines, "", f"Example: {example.group(1)}"] if example else lines)


def _choices_of(experiment: str) -> dict[str, str]:
    """What an experiment chooses, by group."""
    path = config.folder() / "experiment" / f"{experiment}.yaml"
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    found = {}
    for base in re.findall(r"^  - (\w+)$", text, flags=re.M):
        found |= _choices_of(base)
    return found | dict(re.findall(r"^  - override /(\w+): (\w+)$", text, flags=re.M))


def _keys_of(group: str, choice: str) -> list[str]:
    """The keys that a choice sets, those of the choices that it is based on first."""
    path = config.folder() / group / f"{choice}.yaml"
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    keys = [
        key
        for base in re.findall(r"^  - (\w+)$", text, flags=re.M)
        if base != "_self_"
        for key in _keys_of(group, base)
    ]
    own = [key for key in re.findall(r"^(\w+):", text, flags=re.M) if not key.startswith("_") and key != "defaults"]
    return list(dict.fromkeys([*keys, *own]))


def _wrapped(head: str, words: Sequence[str], width: int = 118) -> str:
    lines, line = [], head
    for word in words:
        if len(line) + len(word) + 1 > width:
            lines.append(line)
            line = " " * len(head)
        line += f"{word} "
    return "\n".join([*lines, line.rstrip()])
