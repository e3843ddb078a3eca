"""Values of flags: what is accepted, and what is said about the rest."""

import argparse
from collections.abc import Callable

import pytest

from comfypin.cli.flag_values import (
    parse_rate,
    parse_seconds,
    parse_size,
    seconds_below,
    whole_number,
)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_size, "200GB", 200 * 10**9),
        (parse_size, "80GiB", 80 * 2**30),
        (parse_size, "1.5 TB", 1_500_000_000_000),
        (parse_size, "12", 12),
        (parse_rate, "20MB/s", 20e6),
        (parse_rate, "500k", 500e3),
        (parse_rate, "7", 7),
        (parse_seconds, "0.5", 0.5),
        (seconds_below(10, or_zero=True), "0", 0),
        (whole_number(1, 128), "128", 128),
    ],
)
def test_a_value_is_read_with_its_unit(parse: Callable[[str], float], text: str, value: float) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (parse_size, "lots", "a size, such as 200GB"),
        (parse_rate, "0", "a rate, such as 20MB/s"),
        (parse_seconds, "soon", "a number of seconds above 0"),
        (parse_seconds, "nan", "a number of seconds above 0"),
        (parse_seconds, "inf", "a number of seconds above 0"),
        (seconds_below(10), "0", "a number of seconds above 0 and below 10"),
        (seconds_below(10, or_zero=True), "x", "a number of seconds from 0 and below 10"),
        (whole_number(1, 128), "129", "a number from 1 to 128"),
        (whole_number(1, 128), "\u00b2", "a number from 1 to 128"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(parse: Callable[[str], float], text: str, expected: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        parse(text)
    assert str(caught.value).startswith(f"{text!r} is not {expected}")
