"""`python -m wellseg.evaluate` of folders without a model file; what it scores, tests/test_train.py and test_quantize.py try."""

import pytest
from running import command


@pytest.mark.parametrize(
    ("report", "fix"),
    [
        (True, "its scores are in report.json, beside it"),
        (False, "evaluate the model.safetensors that it was made from"),
    ],
)
def test_a_folder_with_an_onnx_file_alone_is_explained(tmp_path, report, fix):
    folder = tmp_path / "a run é"
    folder.mkdir()
    for name in ["model.onnx"] + ["report.json"] * report:
        (folder / name).touch()
    out = command("evaluate", f"run={folder}", f"hydra.run.dir={tmp_path / 'e'}")
    assert out.returncode == 2
    for text in ("error: the folder holds model.onnx, which evaluate does not score", f"where: {folder}", fix):
        assert text in out.stderr
    assert "Traceback" not in out.stderr


def test_an_onnx_file_is_no_model_to_score(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x0a\x12\x07pytorch")
    out = command("evaluate", f"artifact={path}", "data=synthetic", f"hydra.run.dir={tmp_path / 'e'}")
    assert out.returncode == 2
    assert "model.onnx is an ONNX export" in out.stderr
