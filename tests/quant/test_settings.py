"""Checks which values the settings of a quantization accept."""

import pytest

from wellseg.errors import ConfigError
from wellseg.quant.settings import check, check_name, is_number, is_whole


def test_a_setting_that_does_not_hold_is_refused_with_its_key_and_what_is_wanted():
    check("int4", "bits", 4, True, "2 to 8")
    with pytest.raises(ConfigError, match=r"quant\.bits=9") as error:
        check("int4", "bits", 9, False, "2 to 8")
    assert "int4" in str(error.value)
    assert "2 to 8" in str(error.value)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\0", 4, None])
def test_names_that_are_no_folder_are_refused(name):
    with pytest.raises(ConfigError, match=r"quant\.name"):
        check_name(name)


@pytest.mark.parametrize("name", ["int4", "my scheme", ".hidden", "a.b"])
def test_names_of_folders_are_accepted(name):
    check_name(name)


def test_whole_numbers_and_numbers():
    assert [is_whole(v, 1) for v in (1, 7, 0, 2.0, True, "3", None)] == [True, True, *[False] * 5]
    assert [is_number(v) for v in (0, 1.5, -2)] == [True] * 3
    assert [is_number(v) for v in (True, "1", None, float("nan"), float("inf"))] == [False] * 5
