"""Checks the final tables of a run: scores, wells, pixels and places."""

import logging

import pytest

from wellseg.evaluation.tables import print_results


@pytest.fixture
def printed(caplog):
    def show(results, shown, files=()):
        with caplog.at_level(logging.INFO, logger="wellseg"):
            print_results(results, shown, dict(files))
        return caplog.text

    return show


def results(**changes):
    policy = {"leaky": False, "threshold": 0.25, "empty": "one"}
    binary = {"tp": 1234, "fn": 5, "fp": 6, "tn": 7}
    return {
        "policy": policy,
        "val": {"dice": 0.5},
        "test": {},
        "per_well": {"val": {"well_1": {"dice": 0.75}, "well_2": {"dice": None}}},
        "confusion": {"val": binary},
        **changes,
    }


def test_scores_of_parts_and_wells_are_shown_with_their_policy(printed, tmp_path):
    text = printed(results(), ["dice"], {"model": tmp_path / "model.safetensors"})
    assert "scores at threshold 0.25, empty masks: one" in " ".join(text.split())  # titles are wrapped
    assert "LEAKY" not in text
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if line.count("│") == 3}
    assert "0.5000" in rows["validation"]
    assert "0.7500" in rows["well_1"]
    assert rows["well_2"].split("│")[2].strip() == "-"
    assert "test" not in rows
    assert "1,234 hit, 5 missed, 6 false" in text
    assert str(tmp_path / "model.safetensors") in text


def test_classes_are_shown_with_their_shares(printed):
    confusion = {"counts": [[6, 2], [0, 2]], "classes": ["wall", "door"]}
    scores = {"f1/wall": 0.9, "iou/wall": 0.8, "f1/door": 0.7, "iou/door": None}
    policy = {"leaky": True, "threshold": None, "empty": "one"}
    text = printed(results(policy=policy, val=scores, per_well={}, confusion={"val": confusion}), ["f1/wall"])
    assert "scores of the likeliest class, empty masks: one, LEAKY split" in " ".join(text.split())
    cells = {
        c[0]: c[1:] for line in text.splitlines() if len(c := [cell.strip() for cell in line.split("│")[1:-1]]) == 5
    }
    assert cells["wall"] == ["0.9000", "0.8000", "80.00", "60.00"]
    assert cells["door"] == ["0.7000", "-", "20.00", "40.00"]
