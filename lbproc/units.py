"""Durations, sizes and rates as people write them: ``"30s"``, ``"16MiB"``, ``"100/second"``.

Owns reading and writing the three notations, nothing else: bounds of a key belong to the configuration
model. Everything is computed in integers, so what is written is exactly what is meant, and rendering a
value and reading it again gives the same value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from lbproc.types import Seconds

_LONGEST_TEXT: Final = 40  # no sensible value is longer; bounds the work on hostile input
_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"

_MILLISECONDS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_DURATION: Final = re.compile(rf"(?:{_NUMBER}(?:ms|s|m|h|d))+")
_DURATION_PART: Final = re.compile(rf"({_NUMBER})(ms|s|m|h|d)")

_BYTES: Final = {
    "TiB": 1024**4,
    "GiB": 1024**3,
    "MiB": 1024**2,
    "KiB": 1024,
    "TB": 1000**4,
    "GB": 1000**3,
    "MB": 1000**2,
    "kB": 1000,
    "B": 1,
}
_SIZE: Final = re.compile(rf"({_NUMBER})({'|'.join(_BYTES)}|KB)")

_PERIODS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_PERIOD_OF: Final = _PERIODS | {name[0]: seconds for name, seconds in _PERIODS.items()}
_MULTIPLES: Final = {"": 1, "k": 1000, "M": 1_000_000}
_RATE: Final = re.compile(r"([0-9]+)([kM]?)/([a-z]+)")


class UnitError(ValueError):
    """A text that is not a duration, size or rate.

    Args:
        what: what is wrong, as the end of a sentence that begins with the text.
        right: what would be right, as an instruction with an example.
    """

    def __init__(self, what: str, right: str) -> None:
        super().__init__(f"{what}; {right}")
        self.what = what
        self.right = right


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in so long: ``amount`` in every ``per_seconds``."""

    amount: int
    per_seconds: int

    def __str__(self) -> str:
        """The text that reads as this rate."""
        return render_rate(self)


def parse_duration(text: str) -> Seconds:
    """Reads a span of time: ``500ms``, ``1.5s``, ``1h30m``. The finest is one millisecond.

    Raises:
        UnitError: there is no number, no unit, an unknown unit, or something finer than a millisecond.
    """
    if len(text) > _LONGEST_TEXT or not _DURATION.fullmatch(text):
        raise _duration_error(text)
    total = Fraction(0)
    finest = "d"
    seen: set[str] = set()
    order = list(_MILLISECONDS)
    for number, unit in _DURATION_PART.findall(text):
        if unit in seen or order.index(unit) < order.index(finest):
            raise UnitError(
                "has its units out of order", 'write each unit once, the largest first, such as "1h30m"'
            )
        seen.add(unit)
        finest = unit
        total += Fraction(number) * _MILLISECONDS[unit]
    if total.denominator != 1:
        raise UnitError("is finer than a millisecond", 'write whole milliseconds, such as "250ms"')
    return total.numerator / 1000


def render_duration(seconds: Seconds) -> str:
    """The shortest text in one unit that reads as this span, to the millisecond: ``90m``, ``1500ms``."""
    milliseconds = round(seconds * 1000)
    if milliseconds == 0:
        return "0s"
    for unit, factor in _MILLISECONDS.items():
        if milliseconds % factor == 0:
            return f"{milliseconds // factor}{unit}"
    raise AssertionError("one millisecond divides every whole number of them")  # pragma: no cover


def parse_size(text: str) -> int:
    """Reads a number of bytes: ``32KiB``, ``1.5GiB``, ``10MB``, ``0B``. Units of 1024 have an i in them.

    Raises:
        UnitError: there is no number, no unit, an unknown unit, or a part of a byte.
    """
    found = _SIZE.fullmatch(text) if len(text) <= _LONGEST_TEXT else None
    if found is None:
        raise _size_error(text)
    number, unit = found.groups()
    size = Fraction(number) * _BYTES["kB" if unit == "KB" else unit]
    if size.denominator != 1:
        raise UnitError("is not a whole number of bytes", 'write a whole number, such as "1536KiB"')
    return size.numerator


def render_size(size: int) -> str:
    """The text in the largest unit that divides a number of bytes: ``32KiB``, ``10MB``, ``1025B``."""
    for unit, factor in _BYTES.items():
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


def parse_rate(text: str) -> Rate:
    """Reads a rate: ``100/second``, ``1000/minute``, ``100k/m``, ``2M/day``.

    Raises:
        UnitError: the text is no rate, the period is unknown, or the amount is 0.
    """
    found = _RATE.fullmatch(text) if len(text) <= _LONGEST_TEXT else None
    right = 'write a whole number and second, minute, hour or day, such as "100/second" or "100k/m"'
    if found is None:
        raise UnitError("is not a rate", right)
    number, multiple, period = found.groups()
    if period not in _PERIOD_OF:
        raise UnitError(f'has an unknown period "{period}"', right)
    if int(number) == 0:
        raise UnitError("allows nothing", 'write at least 1, such as "1/minute"')
    return Rate(int(number) * _MULTIPLES[multiple], _PERIOD_OF[period])


def render_rate(rate: Rate) -> str:
    """The text that reads as a rate: ``100/second``, ``100k/minute``, ``2M/day``."""
    period = next((name for name, seconds in _PERIODS.items() if seconds == rate.per_seconds), None)
    if period is None:
        raise ValueError("a rate counts per second, minute, hour or day")
    for multiple in ("M", "k"):
        if rate.amount % _MULTIPLES[multiple] == 0:
            return f"{rate.amount // _MULTIPLES[multiple]}{multiple}/{period}"
    return f"{rate.amount}/{period}"


def _duration_error(text: str) -> UnitError:
    """Says what keeps a text from being a duration, and guesses what was meant where that is safe."""
    example = 'write a number and a unit of ms, s, m, h or d, such as "30s"'
    if len(text) <= _LONGEST_TEXT and re.fullmatch(_NUMBER, text):
        return UnitError("has no unit", f'write "{text}s" for seconds, or another unit of ms, m, h or d')
    return UnitError("is not a duration", example)


def _size_error(text: str) -> UnitError:
    """Says what keeps a text from being a size, and guesses what was meant where that is safe."""
    example = 'write a number and a unit of B, KiB, MiB, GiB, kB, MB or GB, such as "16MiB"'
    if len(text) > _LONGEST_TEXT:
        return UnitError("is not a size", example)
    if re.fullmatch(r"[0-9]+", text):
        return UnitError("has no unit", f'write "{text}B" for bytes, or another unit such as "{text}KiB"')
    if short := re.fullmatch(rf"({_NUMBER}) ?([kKmMgGtT])[bB]?", text):
        number, letter = short.groups()
        return UnitError(
            "has an unclear unit", f'write "{number}{letter.upper()}iB" for units of 1024, or use kB, MB, GB'
        )
    return UnitError("is not a size", example)
