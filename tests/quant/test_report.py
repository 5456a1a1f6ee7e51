"""What report.json says of sizes, thresholds and the gate, and its table and figure; the whole of it: tests/test_quantize.py."""

import hashlib

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from wellseg.plots import results as figures
from wellseg.plots.quantization import picture
from wellseg.quant import compression, report
from wellseg.quant.comparison import Comparison
from wellseg.quant.scheme import Scheme
from wellseg.quant.speed import ROUNDS, device_name, measure

SCORES = {"dice_per_image": 0.8, "iou_per_image": 0.7, "dice_pooled": 0.82, "iou_pooled": None}


def compared(best=(0.5, 0.8)):
    agreement = {"dice_per_image": 0.97, "dice_pooled": 0.98}
    return Comparison(SCORES, SCORES | {"dice_per_image": 0.79}, {"mean": 1e-3, "max": 0.4}, agreement, best, 9)


@pytest.fixture
def finished():
    """A report as `quantize_file` makes one, of two layers, the second of which was widened."""
    speed = {"before": 2.0, "after": 1.0, "ratio": 2.0}
    steps = [{"drop": 0.2, "holds": False, "widened": "b.weight"}, {"drop": 0.01, "holds": True, "widened": None}]
    return {
        "quant": {"name": "int4"},
        "threshold": {"kept": 0.45},
        "source": report.size(20_000),
        "result": report.size(5_000),
        "scores": {"val": report.scores_of(compared()), "test": None},
        "speed": {"latency_ms_batch_1": speed, "windows_per_s_batch_256": speed},
        "gate": report.gate_of(Scheme("int4", 4, max_dice_drop=0.02), steps, "dice_per_image"),
        "layers": [{"name": "a.weight", "bits": 4, "damage": 0.0}, {"name": "b.weight", "bits": 8, "damage": 0.01}],
    }


def test_a_file_is_measured_as_it_lies_on_the_disk(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"x" * 2048)
    assert report.file_record(path) == {
        "name": "model.safetensors",
        "sha256": hashlib.sha256(b"x" * 2048).hexdigest(),
        "bytes": 2048,
        "kB": 2.048,
        "KiB": 2.0,
    }


def test_another_threshold_is_named_only_where_it_is_better():
    better = report.threshold_of(0.45, compared(best=(0.6, 0.81)))
    assert (better["kept"], better["validation_would_choose"], better["dice_per_image_chosen_anew"]) == (
        0.45,
        0.6,
        0.81,
    )
    assert better["dice_per_image_kept"] == 0.79
    assert report.threshold_of(0.45, compared(best=(0.5, 0.79)))["validation_would_choose"] == 0.45


def test_the_gate_lists_what_it_widened(finished):
    gate = finished["gate"]
    assert (gate["max_dice_drop"], gate["fallback"], gate["widened"]) == (0.02, "layers", ["b.weight"])
    assert len(gate["steps"]) == 2


def test_the_table_holds_sizes_scores_and_speed(finished):
    table = report.table(finished)
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert ("bytes on disk", "20,000", "5,000", "0.250 of the size") in rows
    assert ("validation dice_per_image", "0.8000", "0.7900", "-1.00 points") in rows
    assert ("validation iou_pooled", "-", "-", "") in rows
    assert ("ms for a window", "2.00", "1.00", "2.00 times as fast") in rows
    assert not any(row[0].startswith("test") for row in rows)
    assert "int4, threshold 0.45" in table.title
    assert "threshold 0.0004" in report.table(finished | {"threshold": {"kept": 4e-4}}).title


def test_small_thresholds_are_told_apart(caplog):
    told = {"kept": 1e-4, "validation_would_choose": 4e-4, "dice_pooled_kept": 0.5, "dice_pooled_chosen_anew": 0.6}
    with caplog.at_level("INFO"):
        compression._log_threshold(told, "dice_pooled")
    assert "threshold 0.0001 is kept; on validation 0.0004 would" in caplog.text
    curve = {k: [0.25, 0.5] for k in ("threshold", "precision_pooled", "recall_pooled")}
    figure = figures.precision_recall(curve, 2e-4)
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "threshold 0.0002"
    plt.close(figure)


def test_the_figure_draws_layers_without_damage_and_scores_that_are_not_defined(finished, tmp_path):
    figure = picture(finished)
    damage, sizes, scores = figure.axes
    assert [label.get_text() for label in damage.get_yticklabels()] == ["a", "b"]
    assert {text.get_text() for text in damage.texts} == {"4 bits", "8 bits"}
    assert [text.get_text().strip() for text in sizes.texts] == ["20.0 kB", "5.0 kB"]
    assert len(scores.texts) == 6
    figures.save(figure, tmp_path / "q.png")
    assert (tmp_path / "q.png").stat().st_size > 10_000


def test_speed_is_measured_in_turns_on_as_many_windows_as_it_says():
    order, sizes = [], []

    def model(name):
        def feed(values):
            order.append(name)
            sizes.append(len(values))
            return values

        return feed

    windows = np.zeros((7, 36, 36), np.float32)
    speed = measure(model("before"), model("after"), windows, torch.device("cpu"))
    assert order == ["before", "after"] * (len(order) // 2)
    assert [sizes.count(size) for size in (1, 256)] == [2 * (rounds + 1) for rounds in ROUNDS]
    latency, throughput = speed["latency_ms_batch_1"], speed["windows_per_s_batch_256"]
    assert latency["ratio"] == pytest.approx(latency["before"] / latency["after"])
    assert throughput["ratio"] == pytest.approx(throughput["after"] / throughput["before"])
    assert speed["device"] == device_name(torch.device("cpu")) != ""


def test_large_images_are_fed_fewer_at_once():
    sizes = []
    speed = measure(sizes.append, lambda values: None, np.zeros((2, 3, 512, 1024), np.uint8), torch.device("cpu"))
    assert {len(values) for values in sizes} == {1, 2}
    assert "windows_per_s_batch_2" in speed


def test_with_several_classes_there_is_no_threshold_and_f1_decides(finished):
    scores = {"f1_per_image": 0.7, "f1_macro": 0.6}
    after = {"f1_per_image": 0.7, "f1_macro": 0.59}
    agreement = {"dice_per_image": 0.9, "dice_pooled": 0.9}
    comparison = Comparison(scores, after, {"mean": 0.1, "max": 0.2}, agreement, None, 4, "f1_macro")
    assert comparison.drop == pytest.approx(0.01)
    assert report.threshold_of(0.5, comparison) is None
    shown = report.table(finished | {"threshold": None, "scores": {"val": report.scores_of(comparison), "test": None}})
    cells = [cell for column in shown.columns for cell in column.cells]
    assert "validation f1_macro" in cells
    assert "threshold" not in shown.title
