"""Data flows one way: packages form a graph without circles, in the order that CONTRIBUTING states; light modules stay light."""

import ast
import graphlib
import subprocess
import sys
from itertools import pairwise

import pytest
from places import CONF, ROOT, SOURCE

# A package imports from packages to its left, and from packages inside its own entry (data.datasets.airbus from data.datasets).
ORDER = """
    errors types packed moved private_api
    | schema
    | overrides
    | composition
    | config files problems losses metrics models data.augment
    | build data data.io
    | artifact data.wells data.images
    | cli data.datasets inference.engines inference.submission plots
    | callbacks inference data.explore
    | export inference.jobs
    | quant
    | training
    | evaluation
    | interpretation web
    | commands
    | experiments
    | api
"""
LAYERS = [layer.split() for layer in ORDER.split("|")]
LEVEL = {package: level for level, layer in enumerate(LAYERS) for package in layer}
SHIMS = [
    "train",
    "evaluate",
    "predict",
    "quantize",
    "export.__main__",
    "check",
    "preview",
    "slurm",
    "__main__",
    "__init__",
]
"""Modules of the root that start a command, or load a model, and that nothing imports."""
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}


def imported_names(tree):
    """Dotted names below wellseg that a file imports: at its top, inside functions, and for typing only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "wellseg":
            yield from (f"{node.module}.{alias.name}".removeprefix("wellseg.") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("wellseg.") for a in node.names if a.name.startswith("wellseg."))


def module_of(name):
    """The module that a dotted name lies in: `data.nulls.is_null` in `data.nulls`."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def package_of(module):
    """The folder of a module; a module of the root is a package of its own, and an __init__ is its folder's."""
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0] or module


def entry_of(package):
    """The entry of ORDER that a package belongs to."""
    while package not in LEVEL:
        assert "." in package, f"{package} has no place in ORDER"
        package = package.rpartition(".")[0]
    return package


IMPORTS = {
    module: sorted({module_of(name) for name in imported_names(ast.parse(path.read_text()))} - {"", module})
    for module, path in MODULES.items()
}


def refused(module, imported):
    """Returns whether the order forbids `module` to import `imported`."""
    if module in SHIMS:
        return False
    if imported in SHIMS:
        return True
    ours, theirs = entry_of(package_of(module)), entry_of(package_of(imported))
    return ours != theirs and LEVEL[theirs] >= LEVEL[ours]


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_order(module):
    wrong = [imported for imported in IMPORTS[module] if refused(module, imported)]
    assert not wrong, f"{module} imports {wrong}"


@pytest.mark.parametrize(
    ("module", "imported", "wrong"),
    [
        ("data.split", "data.wells.well", True),
        ("data.wells.well", "data.nulls", False),
        ("data.datasets.airbus.module", "data.datasets.roots", False),
        ("cli.main", "commands.train", True),
        ("commands.train", "train", True),
        ("metrics.functional", "losses.pixels", True),
    ],
)
def test_that_the_order_can_be_broken(module, imported, wrong):
    assert refused(module, imported) is wrong


def test_lazy_and_typing_imports_are_read():
    code = "if TYPE_CHECKING:\n    from wellseg.data import store\ndef f():\n    import wellseg.api\nfrom wellseg import load"
    assert set(imported_names(ast.parse(code))) == {"data.store", "api", "load"}


@pytest.mark.parametrize("level", ["modules", "packages"])
def test_there_are_no_circles(level):
    graph = {}
    for module, imports in IMPORTS.items():
        name = {"modules": module, "packages": package_of(module)}[level]
        targets = {{"modules": i, "packages": package_of(i)}[level] for i in imports}
        graph[name] = graph.get(name, set()) | (targets - {name})
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
    assert len(order) == len(graph)


def test_every_entry_of_the_order_has_modules_or_is_planned():
    planned = {"api", "experiments", "interpretation", "web"}
    there = {entry_of(package_of(m)) for m in MODULES if m not in SHIMS and m != "wellseg"}
    assert set(LEVEL) - there <= planned


def test_the_pages_state_the_same_order():
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    for left, right in pairwise(LAYERS):
        assert f"{' '.join(left)} | {' '.join(right)}" in text


def names_read(tree):
    """Dotted names that a module reads or imports: `sys.argv`, `hydra.core.hydra_config.HydraConfig`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


STATE_OF_THE_SHELL = ("HydraConfig", "GlobalHydra", "sys.argv")


def test_names_read_by_a_module_are_found():
    found = set(names_read(ast.parse("from sys import argv\nimport sys\nx = HydraConfig.get()\nsys.argv[1:]")))
    assert {"sys.argv", "HydraConfig"} <= found


@pytest.mark.parametrize("module", [m for m in MODULES if m.split(".")[0] not in ("cli", "config", "composition")])
def test_commands_and_what_lies_below_them_do_not_read_the_state_of_the_shell(module):
    names = set(names_read(ast.parse(MODULES[module].read_text())))
    assert not [name for name in names if name.split(".")[-1] in STATE_OF_THE_SHELL or name in STATE_OF_THE_SHELL]


@pytest.mark.parametrize("module", [m for m in MODULES if package_of(m) == "commands" or m == "api"])
def test_commands_import_at_the_top_of_the_file(module):
    tree = ast.parse(MODULES[module].read_text())
    inside = [n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)]
    assert not [ast.unparse(node) for node in inside if isinstance(node, ast.Import | ast.ImportFrom)]
    assert "TYPE_CHECKING" not in names_read(tree)


LONG = 300
"""Lines that a file may have before it says why it has more."""


def test_long_files_say_why():
    for path in [*SOURCE.rglob("*.py"), *(ROOT / "scripts").glob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) > LONG:
            head = ast.get_docstring(ast.parse("\n".join(lines))) or ""
            assert f"Longer than {LONG} lines" in head, f"{path.relative_to(ROOT)} has {len(lines)} lines and no reason"


def test_package_inits_are_empty():
    for init in SOURCE.rglob("__init__.py"):
        if init.parent != SOURCE:
            assert init.read_text() == "", init


def test_import_wellseg_is_light_and_starts_nothing():
    code = (
        "import wellseg, sys, threading; assert not {'torch', 'hydra', 'numpy'} & set(sys.modules); "
        "assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_serving_needs_neither_lightning_nor_hydra():
    code = (
        "import wellseg.inference.wells, wellseg.inference.images, sys; "
        "assert not {'pytorch_lightning', 'hydra', 'omegaconf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_names_this_machine():
    for path in [*SOURCE.rglob("*.py"), *CONF.rglob("*.yaml")]:
        for word in (str(ROOT), "/home/", "/root/", "/tmp/"):
            assert word not in path.read_text(), f"{path}: {word}"
