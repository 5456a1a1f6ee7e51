"""Results print as a few lines of text and survive a pickle."""

import pickle
from pathlib import Path

import pytest

from wellseg.commands.check import CheckResult
from wellseg.commands.result import CommandResult
from wellseg.commands.score_lines import score_lines
from wellseg.commands.train import TrainResult
from wellseg.metrics.classes import ClassScores
from wellseg.metrics.segmentation import NAMES, SegmentationScores
from wellseg.problems import Problem

BINARY = {"val": dict.fromkeys(NAMES, 0.25), "test": None}


def test_the_scores_of_the_final_table_are_shown():
    text = "\n".join(score_lines(BINARY))
    for name in SegmentationScores.SHOWN:
        assert name in text
    assert "recall_per_image" not in text
    assert "validation" in text
    assert "test" not in text
    assert "0.2500" in text


def test_scores_of_classes_and_scores_without_a_number():
    classes = {"val": dict.fromkeys((*ClassScores.SHOWN, "f1/rust"), 0.5), "test": dict.fromkeys(ClassScores.SHOWN)}
    text = "\n".join(score_lines(classes))
    assert "f1_macro" in text
    assert "rust" not in text
    assert " - " in text


@pytest.mark.parametrize("scores", [{}, {"val": None, "test": None}])
def test_no_scores_make_no_table(scores):
    assert score_lines(scores) == []


def test_a_stopped_run_says_how_it_is_resumed():
    text = repr(TrainResult(folder=Path("runs/a")))
    assert text.splitlines()[0] == "TrainResult"
    assert "ckpt_path=auto" in text
    assert str(Path("runs/a")) in text


def test_findings_are_listed_and_counted():
    problem = Problem("error", "the image is damaged", where="a.npy")
    result = CheckResult(about="a set", findings=(problem, Problem("note", "pairs of wells")))
    assert result.errors == [problem]
    assert result.summary == "a set: 1 error, 0 warnings, 1 note"
    assert "a.npy" in repr(result)


def test_results_pickle_and_have_an_objective():
    result = TrainResult(folder=Path("a"), artifact=Path("a/model.safetensors"), scores=BINARY, objective=0.25)
    assert pickle.loads(pickle.dumps(result)) == result
    assert CommandResult().objective is None
