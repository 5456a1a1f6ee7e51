"""What a job of a multirun is taken for, by the files that it left."""

import json

from wellseg.sweep import summarise

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
