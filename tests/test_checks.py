"""One check of integers: bools, floats and numbers out of range are refused by name."""

from __future__ import annotations

import pytest

from streamingllm.checks import check_choice, check_integer
from streamingllm.errors import ConfigError, InputError


@pytest.mark.parametrize("value", [0, 5, 10])
def test_integers_in_range_pass(value: int) -> None:
    check_integer("size", value, 0, 10)


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_what_is_no_integer_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=f"size={value!r} is no integer; choose .* >= 0"):
        check_integer("size", value, 0)


@pytest.mark.parametrize("value", [-1, 11])
def test_what_is_out_of_range_is_refused(value: int) -> None:
    with pytest.raises(InputError, match=f"size={value} is out of range; choose .* from 0 to 10"):
        check_integer("size", value, 0, 10, error=InputError)


def test_a_choice_is_one_of_those_there_are() -> None:
    check_choice("isa", None, (None, "avx2"))
    with pytest.raises(ConfigError, match=r"^isa='sse' is unknown; choose one of None, avx2$"):
        check_choice("isa", "sse", (None, "avx2"))
