"""Silenced type checks and Any in annotations are counted as a reader counts them, and may only become fewer."""

import importlib.util
import json

import pytest
from places import ROOT

SOURCE = """
from typing import Any
x: Any = 1  # type: ignore[assignment]
text = "# type: ignore, in a string"
def f(a: dict[str, Any], b: "list[Any]", *c: int) -> Any: ...
class Anything: ...
def g(a: Anything) -> None: ...  # any
"""


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("type_debt", ROOT / "scripts" / "type_debt.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_comments_and_annotations_are_counted(script, tmp_path):
    (tmp_path / "a.py").write_text(SOURCE)
    assert script.count(tmp_path) == {"type_ignore": 1, "any": 4}


@pytest.mark.parametrize(("ceiling", "code"), [(4, 0), (3, 1), (5, 0)])
def test_more_than_recorded_fails_and_fewer_are_recorded(script, tmp_path, monkeypatch, capsys, ceiling, code):
    package, ceilings = tmp_path / "src" / "wellseg", tmp_path / "type_debt.json"
    package.mkdir(parents=True)
    (package / "a.py").write_text(SOURCE)
    ceilings.write_text(json.dumps({"type_ignore": 1, "any": ceiling}))
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "CEILINGS", ceilings)
    assert script.main([]) == code
    assert f"4 Any in annotations (at most {ceiling})" in capsys.readouterr().out
    script.main(["--lower"])
    assert json.loads(ceilings.read_text())["any"] == min(4, ceiling)
