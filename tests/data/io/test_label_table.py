import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wellseg.data.io.label_table import map_labels, parse_label_map, read_labels
from wellseg.errors import ConfigError
from wellseg.types import IGNORE

P = 12
HEADER = "," + ",".join(map(str, range(P)))
MASKS = {f"well_1_patch_{k}": np.random.default_rng(k).integers(0, 2, P) for k in range(5)}


def rows(cell=str) -> list[str]:
    return [name + "," + ",".join(cell(v) for v in mask) for name, mask in MASKS.items()]


def read(tmp_path: Path, text: str | bytes, **options):
    path = tmp_path / "y_train.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_labels(path, num_pixels=P, **options)


def assert_masks(table) -> None:
    assert set(table.row_of) == set(MASKS)
    for name, mask in MASKS.items():
        np.testing.assert_array_equal(table.values[table.row_of[name]], mask)
    assert table.values.dtype == np.uint8


@pytest.mark.parametrize(
    "text",
    [
        "\n".join([HEADER, *rows()]) + "\n",
        "\n".join([HEADER, *rows()]),
        "\r\n".join([HEADER, *rows(), ""]),
        "\ufeff" + "\n".join([HEADER, *rows()]),
        "\n".join(rows()),
        "\n".join([HEADER, *rows(lambda v: f"{v}.0")]),
        "\n".join([HEADER, *rows(lambda v: f'"{v}"')]),
        "\n".join([HEADER, *rows(lambda v: f" {v}")]),
        "\n".join([HEADER, *(f'"{r.partition(",")[0]}",{r.partition(",")[2]}' for r in rows())]),
        "\n".join([HEADER.replace(",", ";"), *(r.replace(",", ";") for r in rows())]),
        "\n".join(["id," + ",".join(f"pixel {i}" for i in range(P)), "", *rows(), ""]),
        "\n".join([HEADER, *(r.replace(",", ".npy,", 1) for r in rows())]),
        "\n".join([HEADER, *rows()[:2], *rows(lambda v: f"{v}.0")[2:]]),
    ],
    ids=[
        "plain",
        "noeol",
        "crlf",
        "bom",
        "noheader",
        "floats",
        "quoted",
        "spaces",
        "quotedname",
        "semicolon",
        "header-blank",
        "npy",
        "mixed",
    ],
)
def test_the_same_masks_in_any_spelling(tmp_path: Path, text: str) -> None:
    table, problems = read(tmp_path, text)
    assert problems == []
    assert_masks(table)


def test_a_header_in_another_order_is_followed(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(P)
    shuffled = [n + "," + ",".join(str(m[i]) for i in order) for n, m in MASKS.items()]
    shuffled[3] = shuffled[3].replace(",1", ",1.0")
    table, problems = read(tmp_path, "\n".join(["," + ",".join(map(str, order)), *shuffled]))
    assert problems == []
    assert_masks(table)


@pytest.mark.parametrize(
    ("cell", "shown", "fix"), [("255", "255", "{255:1}"), ("2", "2", "{2:1}"), ("0.5", "0.5", "{0.5:1}")]
)
def test_other_values_are_errors_with_line_and_fix(tmp_path: Path, cell: str, shown: str, fix: str) -> None:
    lines = [HEADER, *rows()]
    lines[3] = lines[3].rpartition(",")[0] + f",{cell}"
    table, (problem,) = read(tmp_path, "\n".join(lines))
    assert problem.severity == "error"
    assert problem.what == f"label values {shown} are neither 0 nor 1"
    assert "line 4 (well_1_patch_2)" in problem.where
    assert "line 3" not in problem.where
    assert f"data.label_map={fix}" in problem.fix
    assert table.values[2, -1] == IGNORE


def test_label_map_takes_other_values(tmp_path: Path) -> None:
    text = "\n".join([HEADER, *rows(lambda v: str(255 * v))])
    table, problems = read(tmp_path, text, label_map={255: 1})
    assert problems == []
    assert_masks(table)
    table, problems = read(tmp_path, "\n".join([HEADER, *rows(lambda v: str(2 * v))]), label_map={2: IGNORE})
    assert problems == []
    np.testing.assert_array_equal(table.values[0], np.where(MASKS["well_1_patch_0"] == 1, IGNORE, 0))


@pytest.mark.parametrize("wrong", [{255: 7}, {"a": 1}, [1]])
def test_a_wrong_label_map_is_a_configuration_error(wrong) -> None:
    with pytest.raises(ConfigError, match=r"data\.label_map"):
        parse_label_map(wrong)


def test_every_bad_row_is_listed_in_one_pass(tmp_path: Path) -> None:
    lines = [HEADER, *rows()]
    lines[1] += ",0"
    lines[2] = lines[2].rpartition(",")[0]
    lines[3] = lines[3].rpartition(",")[0] + ",x"
    lines.append(lines[5])
    table, problems = read(tmp_path, "\n".join(lines))
    assert all(p.severity == "error" for p in problems)
    text = "\n".join(map(str, problems))
    assert "line 2 (well_1_patch_0): 14 cells" in text
    assert "line 3 (well_1_patch_1): 12 cells" in text
    assert "expected 13 cells" in text
    assert f"line 4 (well_1_patch_2), column {P + 1} (pixel {P - 1}): 'x'" in text
    assert "well_1_patch_4 (lines 6 and 7)" in text
    assert (table.values[table.row_of["well_1_patch_2"]] == IGNORE).all()
    np.testing.assert_array_equal(table.values[table.row_of["well_1_patch_3"]], MASKS["well_1_patch_3"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("".encode("utf-16"), "UTF-16"),
        (HEADER.encode("utf-16"), "UTF-16"),
        (b"", "holds no labels"),
        (HEADER.encode(), "holds no labels"),
        (b"x" * (3 << 20), "longer than 1,048,576 B"),
        (b"a,b,c\nwell_1_patch_0,1,0\n", "line 1 (the header): 3 cells"),
        (b'well_1_patch_0,"1\n', "line 1"),
        (bytes(range(128, 256)), "line 1"),
    ],
)
def test_what_is_no_label_file_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    _, problems = read(tmp_path, content)
    assert problems
    assert message in "\n".join(map(str, problems))


def test_missing_file(tmp_path: Path) -> None:
    _, (problem,) = read_labels(tmp_path / "none.csv")
    assert "No such file" in problem.why


def test_arrays_are_mapped() -> None:
    for dtype in (bool, np.uint8, np.int64, np.float32):
        mapped, offending = map_labels(np.array([[0, 1]], dtype=dtype), {})
        np.testing.assert_array_equal(mapped, [[0, 1]])
        assert mapped.dtype == np.uint8
        assert not offending
    mapped, offending = map_labels(np.array([0, 1, 2, 2, np.nan]), {})
    assert mapped.tolist() == [0, 1, IGNORE, IGNORE, IGNORE]
    assert offending[2.0] == 2
    assert sum(offending.values()) == 3


def test_full_size_file_in_time_and_memory(tmp_path: Path) -> None:
    path = tmp_path / "y_train.csv"
    cells = ",".join(map(str, np.random.default_rng(0).integers(0, 2, 1296)))
    with open(path, "w") as file:
        file.write("," + ",".join(map(str, range(1296))) + "\n")
        file.writelines(f"well_{k % 15 + 1}_patch_{k},{cells}\n" for k in range(9674))
    code = (
        "import re, sys, time\n"
        "from wellseg.data.io.label_table import read_labels\n"
        "start = time.perf_counter()\n"
        "table, problems = read_labels(sys.argv[1])\n"
        "took = time.perf_counter() - start\n"
        "assert table.values.shape == (9674, 1296) and not problems\n"
        "peak = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "print(took, peak)\n"
        "assert took < 5 and peak < 500_000, (took, peak)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
