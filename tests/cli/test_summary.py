"""What a job of a multirun is taken for, by the files that it left."""

import csv
import json

from wellseg.cli.summary import report, summarise

SCORES = {"dice_per_image": 0.5}


def test_every_kind_of_job_has_its_row(tmp_path):
    for number, name, content in (
        (0, None, None),
        (1, "export.json", {"format": "onnx", "files": [{"bytes": 300}, {"bytes": 20}]}),
        (2, "metrics.json", {"val": SCORES, "test": None}),
        (3, "report.json", {"status": "refused"}),
        (4, "report.json", {
            "status": "done", "result": {"bytes": 7}, "scores": {"val": {"after": {"dice_per_image": 0.8}}, "test": None},
        }),
    ):  # fmt: skip
        record = tmp_path / str(number) / ".hydra"
        record.mkdir(parents=True)
        (record / "overrides.yaml").write_text(f"- job={number}\n- name=x\n- +a=b={number}\n")
        if name:
            (record.parent / name).write_text(json.dumps(content))
    (tmp_path / "notes").mkdir()
    rows = summarise(tmp_path)
    assert [(row["status"], row["a"], row.get("bytes"), row.get("val/dice_per_image")) for row in rows] == [
        ("done", "b=4", 7, 0.8),
        ("done", "b=2", None, 0.5),
        ("failed", "b=0", None, None),
        ("done", "b=1", 320, None),
        ("refused", "b=3", None, None),
    ]
    assert not any("name" in row for row in rows)


def swept(folder, *jobs, file="metrics.json"):
    for number, content in enumerate(jobs):
        (folder / str(number)).mkdir()
        (folder / str(number) / file).write_text(json.dumps(content))
    report(folder)


def printed(capsys):
    """The table as it was printed, without the breaks of its title."""
    return " ".join(capsys.readouterr().out.split())


def scored(selection, **scores):
    return {"val": scores, "test": {k: v / 2 for k, v in scores.items()}, "policy": {"selection": selection}}


def test_the_table_shows_the_score_that_it_is_sorted_by(tmp_path, capsys):
    swept(tmp_path, scored("dice_pooled", dice_pooled=0.3125, dice_per_image=0.9),
          scored("dice_pooled", dice_pooled=0.4375, dice_per_image=0.1))  # fmt: skip
    out = printed(capsys)
    assert "best dice_pooled on validation first" in out
    assert "val/dice_pooled" in out
    assert "test/dice_pooled" in out
    assert out.index("0.4375") < out.index("0.3125")
    assert "0.1562" in out


def test_jobs_that_are_chosen_by_different_scores_each_show_theirs(tmp_path, capsys):
    swept(tmp_path, scored("iou_pooled", iou_pooled=0.25), scored("iou_macro", iou_macro=0.75))
    out = printed(capsys)
    assert all(column in out for column in ("val/iou_pooled", "val/iou_macro", "sorted by"))
    with open(tmp_path / "summary.csv", newline="") as f:
        assert [row["sorted by"] for row in csv.DictReader(f)] == ["iou_macro", "iou_pooled"]


def test_quantizations_of_several_classes_are_sorted_by_their_own_score(tmp_path, capsys):
    def quantized(value):
        scores = {"val": {"after": {"f1_macro": value, "f1_per_image": 1 - value}}, "test": None}
        return {"status": "done", "result": {"bytes": 1}, "scores": scores, "policy": {"selection": "f1_macro"}}

    swept(tmp_path, quantized(0.25), quantized(0.75), file="report.json")
    out = printed(capsys)
    assert "best f1_macro on validation first" in out
    assert out.index("0.7500") < out.index("0.2500")
