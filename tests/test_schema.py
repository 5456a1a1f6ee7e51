"""What conf/ declares: comments of all keys and choices, path marks, and values as Hydra reads them."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from wellseg import config, schema
from wellseg.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1] / "conf"
SOURCE = ROOT.parent / "src" / "wellseg"
OURS = sorted(p for p in ROOT.rglob("*.yaml") if p.relative_to(ROOT).parts[0] != "hydra")
FORBIDDEN = ("told", "dealt", "mend", "hand in", "be had", "none of a", "beside", "stands", "as they are", "goes on")
PATHLIKE = re.compile(
    r"(\w+_)?(root|dir|path|file(name)?|folder|weights|teachers|artifact|pretrained|(out|in)puts?|runs?)"
)
NO_PATHS = {
    "callbacks.best.filename": "a name below checkpoints/",
    "callbacks.last.filename": "a name below checkpoints/",
    "loss.weights": "a scheme of class weights",
    "hydra.run": "a mapping, which holds dir",
    "callbacks.best": "a callback; code also calls the path of its checkpoint best",
    "trainer": "a group; code also calls an object trainer",
    "name": "a name of a folder below outputs/train",
    "logger.name": "a name of a folder below the run folder",
    "quant.name": "a name of a folder below the run folder",
    "hydra.job.name": "a name of a log file below the run folder",
}


def flat(node, prefix=""):
    """Keys and values of a plain mapping by dotted name, outer keys included, without what Hydra reads itself."""
    for key, value in node.items():
        if not key.startswith("_") and f"{prefix}{key}" != "defaults":
            yield f"{prefix}{key}", value
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")


def full_names():
    """Every key of conf/ by full name, read without schema."""
    found = set()
    for file in OURS:
        group = file.relative_to(ROOT).parts[0]
        prefix = "" if group in ("experiment", file.name) else f"{group}."
        found |= {f"{prefix}{name}" for name, _ in flat(yaml.safe_load(file.read_text(encoding="utf-8")))}
    return found


def conf(folder, **files):
    """A small conf/ in `folder`; `__` in a name is a slash."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_every_command_choice_and_key_has_a_comment():
    assert schema.undocumented(ROOT) == []


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({"train": "# Trains.\nseed: 0\n"}, ["train.yaml: seed"]),
        ({"train": "seed: 0 # of everything\n"}, ["train.yaml"]),
        ({"train": "# python -m wellseg.train\nseed: 0 # x\n"}, ["train.yaml"]),
        ({"train": "# Trains.\nhydra:\n  run:\n    dir: x\n"}, ["train.yaml: hydra.run.dir"]),
        ({"model__a": "# A.\ndepth: 1\nwidth: 2 # channels\n"}, ["model/a.yaml: depth"]),
        ({"model__a": "# A.\nouter:  # x\n  inner: 1\n"}, ["model/a.yaml: outer.inner"]),
        ({"model__a": "_target_: x.Y\n"}, ["model/a.yaml"]),
        ({"model__a": "# A.\nb: 1 # x\n", "model__c": "# C.\ndefaults: [a, _self_]\nb: 2\nd: 3\n"}, ["model/c.yaml: d"]),
        ({"experiment__e": "# @package _global_\n# E.\nseed: 1\n"}, ["experiment/e.yaml: seed"]),
        ({"experiment__e": "# @package _global_\nseed: 1 # x\n"}, ["experiment/e.yaml"]),
    ],
)  # fmt: skip
def test_what_has_no_comment_is_found(files, missing, tmp_path):
    assert schema.undocumented(conf(tmp_path, **files)) == missing


def test_comments_are_short_plain_lines():
    for file in OURS:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if "#" in line]
        for line in lines:
            assert not [w for w in FORBIDDEN if re.search(rf"\b{w}\b", line, flags=re.I)], f"{file.name}: {line}"
        for key in schema.keys_of(file):
            assert len(key.comment) <= 100, f"{file.name}: {key.name}"
            assert not key.comment.removesuffix("...").endswith((".", ",", ";", ":")), f"{file.name}: {key.name}"
    for group in schema.groups(ROOT):
        for name in schema.choices(ROOT, group):
            comment = schema.choice(ROOT, group, name).comment
            assert len(comment) <= 100, f"{group}={name}"
            assert comment.endswith("."), f"{group}={name}"
    for name in schema.commands(ROOT):
        made = schema.command(ROOT, name)
        assert len(made.comment) <= 100
        assert made.comment.endswith(".")
        assert made.example.startswith("python -m wellseg.")


def test_every_key_that_is_named_like_a_path_is_marked_and_no_other():
    named = {n for n in full_names() if PATHLIKE.fullmatch(n.rpartition(".")[2]) or n == "submission"} - set(NO_PATHS)
    assert schema.path_keys(ROOT) == named
    assert {"data.root", "model.weights", "distill.teachers", "ckpt_path", "hydra.sweep.dir"} <= named


def test_every_key_that_the_code_makes_a_path_of_is_marked():
    used = set()
    for file in SOURCE.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(call, ast.Call) and call.args):
                continue
            if getattr(call.func, "id", None) not in ("Path", "as_path"):
                continue
            value = call.args[0]
            if isinstance(value, ast.Call) and value.args:  # Path(str(cfg.output))
                value = value.args[0]
            used |= {value.id} if isinstance(value, ast.Name) else set()
            used |= {value.attr} if isinstance(value, ast.Attribute) else set()
    names = {name for name in full_names() if name.rpartition(".")[2] in used} - set(NO_PATHS)
    assert {"artifact", "data.root", "model.weights"} <= names
    assert names <= schema.path_keys(ROOT)


@pytest.mark.parametrize("file", OURS, ids=lambda p: str(p.relative_to(ROOT)))
def test_keys_and_values_are_those_that_hydra_reads(file):
    read = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    found = {key.name: key.value for key in schema.keys_of(file)}
    wanted = dict(flat(read))
    assert found == wanted
    assert {n: type(v) for n, v in found.items()} == {n: type(v) for n, v in wanted.items()}
    for key in schema.keys_of(file):
        if key.text:
            assert OmegaConf.to_container(OmegaConf.create(f"x: {key.text}"), resolve=False)["x"] == key.value


@pytest.mark.parametrize("name", schema.commands(ROOT))
def test_default_choices_are_those_that_hydra_makes(name):
    chosen = config.load(name, with_hydra=True).hydra.runtime.choices
    defaults = schema.defaults_of(ROOT, name)
    assert defaults == {group: str(chosen[group]).replace("None", "null") for group in defaults}
    assert set(defaults) == {group for group in chosen if group in schema.groups(ROOT)}


@pytest.mark.parametrize("experiment", ["airbus_2", "stanford", "exp53"])
def test_keys_of_a_command_are_those_that_hydra_composes(experiment):
    composed = OmegaConf.to_container(
        config.load("train", [f"experiment={experiment}", "callbacks=ema"]), resolve=False
    )
    wanted = {n: v for n, v in flat(composed) if not isinstance(v, dict)}
    found = schema.keys(ROOT, "train", {"experiment": experiment, "callbacks": "ema", "data": "nonsense"})
    inner = ("data.batch_shares.empty", "data.batch_shares.many")  # set by an experiment, documented as one key
    assert {n: k.value for n, k in found.items() if k.text} == {n: v for n, v in wanted.items() if n not in inner}


def test_comments_and_path_marks_are_inherited():
    own = {key.name: key for key in schema.keys_of(ROOT / "distill" / "ensemble.yaml")}
    assert own["teachers"].comment == ""
    ensemble = {key.name: key for key in schema.choice(ROOT, "distill", "ensemble").keys}
    assert ensemble["teachers"].path
    assert len(ensemble["teachers"].value) == 3
    assert ensemble["teachers"].comment
    assert schema.choice(ROOT, "distill", "ensemble").bases == ("teacher53",)
    airbus = schema.choice(ROOT, "experiment", "airbus_2")
    assert airbus.selects["model"] == "unet_resnet18"
    trainer = {key.name: key.comment for key in schema.choice(ROOT, "trainer", "cpu").keys}
    assert {key.name: key.comment for key in airbus.keys}["trainer.max_epochs"] == trainer["max_epochs"]


def test_an_experiment_changes_values_and_keeps_what_the_group_says():
    key = schema.keys(ROOT, "train", {"experiment": "airbus_1"})["metrics.threshold"]
    plain = schema.keys(ROOT, "train")["metrics.threshold"]
    assert (key.value, key.text, key.comment) == (0.2, "0.2", plain.comment)
    given = schema.keys(ROOT, "train", {"experiment": "airbus_1", "model": "micro"})
    assert "model.width" in given
    assert "model.weights" not in given


@pytest.mark.parametrize(
    ("text", "comment", "path"),
    [
        ("# Top.\nkey: 1 # one\n", "one", False),
        ("# Top.\nkey: 1\n", "", False),
        ("# Top.\nkey: '#no' # yes\n", "yes", False),
        ("# Top.\nkey: a#b\n", "", False),
        ("# Top.\n\n# above\nkey: 1\n", "above", False),
        ("# Top.\n\n# two\n# lines\nkey: [1,\n  2]\n", "two lines", False),
        ("# Top.\nkey: [1,\n  2] # end\n", "end", False),
        ("# Top.\nkey: # list\n  - a\n  - b\n", "list", False),
        ("# Top.\nkey: # map\n  inner: 1 # other\n", "map", False),
        ("# Top.\nkey: {a: 1} # flow\n", "flow", False),
        ("# Top.\nkey: ${a.b} # the same\n", "the same", False),
        ("# Top.\nkey: null # [path] a file\n", "a file", True),
        ("# Top.\nkey: null # a file, not a [path]\n", "a file, not a [path]", False),
    ],
)
def test_a_comment_is_that_of_the_line_or_of_the_lines_above(text, comment, path, tmp_path):
    key = schema.keys_of(conf(tmp_path, a=text) / "a.yaml")[0]
    assert (key.name, key.comment, key.path) == ("key", comment, path)


def test_a_command_has_an_example_a_purpose_and_details(tmp_path):
    root = conf(tmp_path, go="# python -m x\n# Goes.\n# More\n# of it.\ndefaults:\n  - _self_\n  - a: b\n  - c: null\n")
    made = schema.command(root, "go")
    assert (made.example, made.comment, made.details) == ("python -m x", "Goes.", "More of it.")
    assert dict(made.defaults) == {"a": "b", "c": "null"}


def test_targets_are_those_of_all_files(tmp_path):
    texts = [p.read_text(encoding="utf-8") for p in ROOT.rglob("*.yaml")]
    assert schema.targets(ROOT) == set(re.findall(r"_target_: *([A-Za-z][\w.]*\.\w+)", "\n".join(texts)))
    assert "wellseg.losses.bce.bce" in schema.targets(ROOT)
    text = "# A.\na: {_target_: x.Y}\nb: [{_target_: x.Z}]\nc: '_target_: x.No'\n_target_: null\n"
    assert schema.targets(conf(tmp_path, model__a=text)) == {"x.Y", "x.Z"}


@pytest.mark.parametrize(("text", "what"), [("a: [1\n", "is not YAML"), (None, "cannot be read")])
def test_a_file_that_cannot_be_used_is_named(text, what, tmp_path):
    if text is not None:
        conf(tmp_path, model__a=text)
    with pytest.raises(ConfigError, match=what) as error:
        schema.choice(tmp_path, "model", "a")
    assert str(tmp_path / "model" / "a.yaml") in str(error.value)


def test_reading_needs_neither_hydra_nor_torch():
    code = (
        f"import sys, pathlib; from {schema.__name__} import path_keys, undocumented\n"
        f"path_keys(pathlib.Path({str(ROOT)!r})); undocumented(pathlib.Path({str(ROOT)!r}))\n"
        "assert not {'torch', 'hydra', 'omegaconf', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT.parent / "scripts"))
    from config_reference import reference

    return reference


def test_the_reference_page_lists_all_commands_choices_and_keys(reference):
    lines = reference(ROOT).splitlines()
    assert [line for line in lines if line.startswith("### ") and "=" not in line] == [
        f"### `{name}`" for name in schema.commands(ROOT)
    ]
    for group in schema.groups(ROOT):
        assert f"## Group `{group}`" in lines
        for name in schema.choices(ROOT, group):
            assert f"### `{group}={name}`" in lines
    rows = {line.split("`")[1] for line in lines if line.startswith("| `")}
    unvalued = {n for n in full_names() if n in schema.groups(ROOT) or n.startswith("hydra")}
    assert full_names() - unvalued - {"data.batch_shares"} <= rows
    assert "hydra.run.dir" in rows
    assert any(line.startswith("| `model.weights` | `null` | ") and line.endswith(" (path) |") for line in lines)


def test_a_bar_in_a_comment_stays_in_its_cell(reference, tmp_path):
    page = reference(conf(tmp_path, model__a="# A.\nkey: 1 # one | two\n"))
    assert "| `model.key` | `1` | one \\| two |" in page.splitlines()
