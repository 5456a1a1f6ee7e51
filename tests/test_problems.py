import pytest

from wellseg.errors import DataError
from wellseg.problems import Problem, count, errors_of, list_names, number_ranges, raise_errors


def test_one_error_is_raised_as_it_is() -> None:
    problems = [
        Problem("note", "n"),
        Problem("error", "bad file", where="a.npy", why="cut short", fix="copy it"),
        Problem("warning", "w"),
    ]
    with pytest.raises(DataError) as caught:
        raise_errors(problems)
    assert str(caught.value) == "bad file\n where: a.npy\n why:   cut short\n fix:   copy it"


def test_many_errors_are_listed_ten_with_a_count() -> None:
    with pytest.raises(DataError, match="13 errors") as caught:
        raise_errors(Problem("error", f"file {i} is bad") for i in range(13))
    text = str(caught.value)
    assert "file 9 is bad" in text
    assert "file 10 is bad" not in text
    assert "and 3 more" in text


def test_warnings_and_notes_are_not_raised() -> None:
    problems = [Problem("warning", "w"), Problem("note", "n")]
    raise_errors(problems)
    assert errors_of(problems) == []


def test_unknown_severity_is_a_bug() -> None:
    with pytest.raises(ValueError, match="severity"):
        Problem("fatal", "x")


def test_names_are_listed_and_counted() -> None:
    assert list_names([str(i) for i in range(1200)]).endswith("8, 9 and 1,190 more")
    assert list_names(["a", "b"]) == "a, b"
    assert number_ranges([3, 1, 2, 9, 2]) == "1-3, 9"
    assert number_ranges([]) == ""
    assert [count(range(n), "patch") for n in (1, 2)] == ["1 patch", "2 patches"]
