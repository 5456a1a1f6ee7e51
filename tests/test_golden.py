"""The recorded numbers of tests/golden/ against those of today, and that the comparison sees what it should.

Another number is either a mistake, or recorded anew by `python scripts/record_golden.py --overwrite --only GROUP` in the commit
that changes it, with the size of the change in its message.
"""

import copy
import importlib.util
import json
import shutil

import comparing
import numpy as np
import pytest
import recording

SCRIPT = recording.ROOT / "scripts" / "record_golden.py"


SLOW = ("quantized_further",)
GROUPS = [pytest.param(g, marks=pytest.mark.slow) if g in SLOW else g for g in recording.GROUPS]


@pytest.mark.parametrize("group", GROUPS)
def test_the_recorded_numbers_are_reproduced(group, tmp_path, record_property):
    recorded, found = recording.stored(group), recording.record(group, tmp_path / group)
    compared = comparing.mode(recorded, found)
    record_property("compared", compared)
    print(f"{group}: compared by {compared}")
    lines = comparing.differences(recorded, found)
    assert not lines, f"compared by {compared}:\n" + "\n".join(lines)


def test_every_model_and_scheme_of_conf_is_recorded():
    for part, groups in (("model", ["networks"]), ("quant", ["quantized", "quantized_further"])):
        names = {p.stem for p in (recording.CONF / part).glob("*.yaml")} - {"none"}
        assert names <= {case for group in groups for case in recording.stored(group)["cases"]}


def altered(recorded, level, key, change):
    found = copy.deepcopy(recorded)
    case = found["cases"]["unet_flex"]
    case[level][key] = change(case[level][key])
    return found


def test_the_comparison_names_what_differs():
    recorded = recording.stored("networks")
    assert comparing.differences(recorded, copy.deepcopy(recorded)) == []
    by_a_bit = altered(recorded, "bytes", "weights", lambda v: v[::-1])
    assert [line.split(":")[0] for line in comparing.differences(recorded, by_a_bit)] == ["unet_flex"]
    by_rounding = altered(recorded, "close", "losses", lambda v: [v[0] + 5e-6, *v[1:]])
    assert comparing.differences(recorded, by_rounding) == []
    by_more = altered(recorded, "close", "losses", lambda v: [v[0] + 5e-5, *v[1:]])
    assert "unet_flex: losses (close): recorded" in comparing.differences(recorded, by_more)[0]
    assert comparing.differences(recorded, altered(recorded, "close", "losses", lambda v: v[:2]))
    assert comparing.differences(recorded, altered(recorded, "exact", "logits", lambda v: [*v[:-1], v[-1] + 1]))
    del by_more["cases"]["unet_flex"]
    assert comparing.differences(recorded, by_more) == ["unet_flex: recorded, and missing now"]


def test_hashes_count_in_the_recorded_environment_alone():
    recorded = recording.stored("networks")
    elsewhere = altered(recorded, "bytes", "weights", lambda v: v[::-1])
    elsewhere["environment"]["versions"]["torch"] = "0"
    assert comparing.differences(recorded, elsewhere) == []
    assert comparing.mode(recorded, elsewhere) == "close to 1e-05: another versions"
    worse = altered(elsewhere, "close", "losses", lambda v: [np.inf, *v[1:]])
    assert comparing.differences(recorded, worse)


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The script's main, on a copy of the recorded networks, and with a measurement that takes no time."""
    spec = importlib.util.spec_from_file_location("record_golden", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shutil.copy(recording.GOLDEN / "networks.json", tmp_path)
    measured = recording.stored("networks")
    monkeypatch.setattr(recording, "GOLDEN", tmp_path)
    monkeypatch.setattr(recording, "record", lambda *_: measured)
    return module.main, measured, tmp_path / "networks.json"


def test_the_script_checks(script, capsys):
    main, measured, _ = script
    assert main(["--check", "--only", "networks"]) == 0
    assert "networks: 0 differences" in capsys.readouterr().out
    measured["cases"]["micro"]["close"]["losses"][2] += 1
    assert main(["--check", "--only", "networks"]) == 1
    assert "micro: losses (close): recorded" in capsys.readouterr().out
    assert main(["--check", "--only", "scores"]) == 2
    assert "error: scores.json is missing" in capsys.readouterr().err


def test_the_script_replaces_nothing_unless_asked_to(script, capsys):
    main, measured, path = script
    measured["cases"] = {}
    before = path.read_bytes()
    assert main(["--only", "networks", "scores"]) == 2
    assert "networks.json is recorded already; --overwrite replaces it" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert not path.with_name("scores.json").exists()
    assert main(["--only", "networks", "--overwrite"]) == 0
    assert json.loads(path.read_text())["cases"] == {}
