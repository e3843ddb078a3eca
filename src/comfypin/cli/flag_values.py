"""Parsers for the values of flags, and the sizes that commands print."""

import argparse
import math
import re
from collections.abc import Callable

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(I?)B?", re.IGNORECASE)
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?)i?B?(?:/s)?", re.IGNORECASE)


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """Return a parser for a whole number from `lowest` to `highest`."""

    def parse_number(flag_value: str) -> int:
        # `isdigit` alone also accepts digits such as \u00b2, which `int` refuses.
        if not flag_value.isascii() or not flag_value.isdigit() or not lowest <= int(flag_value) <= highest:
            raise argparse.ArgumentTypeError(f"{flag_value!r} is not a number from {lowest} to {highest}")
        return int(flag_value)

    return parse_number


def parse_seconds(flag_value: str) -> float:
    """Parse a duration above 0, in seconds."""
    try:
        seconds = float(flag_value)
    except ValueError:
        seconds = math.nan
    # Written so that NaN fails too: every comparison with it is false.
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{flag_value!r} is not a number of seconds above 0")
    return seconds


def seconds_below(limit: float, *, or_zero: bool = False) -> Callable[[str], float]:
    """Return a parser for a duration in seconds, above 0 (or 0 too) and below `limit`."""

    def parse_limited(flag_value: str) -> float:
        try:
            seconds = float(flag_value)
        except ValueError:
            seconds = math.nan
        if not (0 < seconds < limit or (or_zero and seconds == 0)):
            lowest = "from 0" if or_zero else "above 0"
            raise argparse.ArgumentTypeError(f"{flag_value!r} is not a number of seconds {lowest} and below {limit:g}")
        return seconds

    return parse_limited


def parse_size(flag_value: str) -> int:
    """Parse `200GB`, `1.5TB` or `80GiB` as bytes."""
    size_match = _SIZE.fullmatch(flag_value.strip())
    if size_match is None:
        raise argparse.ArgumentTypeError(f"{flag_value!r} is not a size, such as 200GB, 1.5TB or 80GiB")
    unit_step = 1024 if size_match[3] else 1000
    return int(float(size_match[1]) * unit_step ** " KMGT".index(size_match[2].upper() or " "))


def parse_rate(flag_value: str) -> float:
    """Parse `20MB/s`, `500K` or `1.5G` as bytes a second."""
    rate_match = _RATE.fullmatch(flag_value.strip())
    # A rate of 0 would never end.
    if rate_match is None or float(rate_match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{flag_value!r} is not a rate, such as 20MB/s")
    return float(rate_match[1]) * 1000.0 ** " KMG".index(rate_match[2].upper() or " ")
