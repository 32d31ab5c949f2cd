# ruff: noqa: E501  messages stand here word for word, one on a line
from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from lbproc.config.model import PoolConfig
from lbproc.config.outlier import OutlierConfig
from tests.config.refusal import accepted, refusal
from tests.config.test_crosscheck import GOOD, found

OUTLIER = TypeAdapter(OutlierConfig)
POOL = TypeAdapter(PoolConfig)
RIGHT = "write a share of 0.001 to 1, such as 0.5; for no ejections leave out the whole table"


def test_an_empty_table_has_the_documented_defaults() -> None:
    assert accepted(OUTLIER, {}) == OutlierConfig(
        consecutive_errors=5, eject_for="30s", max_eject_for="5m", max_ejected=0.5
    )


def test_longest_ejection_is_ten_times_the_first_unless_it_is_given() -> None:
    assert accepted(OUTLIER, {"eject_for": "350ms"}).max_eject_for == 3.5
    assert accepted(OUTLIER, {"eject_for": "1m", "max_eject_for": "2m"}).max_eject_for == 120.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"consecutive_errors": 0}, "is 0, which is less than 1; write a whole number of 1 to 1000000"),
        ({"eject_for": 30}, 'is an integer, not a duration; write the unit too, as a string such as "30s" or "30s"'),
        ({"eject_for": "10ms"}, '"10ms" is too short; write a duration of "100ms" to "1d", such as "30s"'),
        ({"max_ejected": 0}, f"is 0, which is less than 0.001; {RIGHT}"),
        ({"max_ejected": 50}, f"is 50, which is more than 1, which is all of them; {RIGHT}"),
        ({"max_ejected": float("nan")}, f"is nan, which is less than 0.001; {RIGHT}"),
        ({"max_ejected": "50%"}, "is a string, not a share; write a share such as 0.5, which is half of them"),
        ({"max_ejected": True}, "is a boolean, not a share; write a share such as 0.5, which is half of them"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_what_would_be_right(given: dict[str, Any], message: str) -> None:
    assert refusal(OUTLIER, {"max_eject_for": "5m", **given}) == message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"panic_threshold": 1.5}, "is 1.5, which is more than 1, which is all of them; write a share of 0 to 1, such as 0.5"),
        ({"panic_threshold": -1}, "is -1, which is less than 0; write a share of 0 to 1, such as 0.5"),
        ({"slow_start": "2d"}, '"2d" is too long; write a duration of "0s" to "1d", such as "30s"'),
    ],
)  # fmt: skip
def test_panic_threshold_and_slow_start_are_held_to_their_bounds(given: dict[str, Any], message: str) -> None:
    assert refusal(POOL, {"backends": ["10.0.0.1:80"], **given}) == message


@pytest.mark.parametrize(
    ("rest", "messages"),
    [
        ('slow_start = "30s"\npanic_threshold = 0.5\noutlier = { eject_for = "1m", max_eject_for = "1m" }', []),
        (
            'outlier = { eject_for = "1m", max_eject_for = "30s" }',
            ['7: pools.web.outlier.max_eject_for: "30s" is shorter than eject_for, which is "1m"; write a longer one, or leave it out for ten times eject_for'],
        ),
        ('outlier = { max_eject_for = "10s" }', ['7: pools.web.outlier.max_eject_for: "10s" is shorter than eject_for, which is "30s"; write a longer one, or leave it out for ten times eject_for']),
        ('outlier = { eject_for = 3, max_eject_for = "10s" }', []),
        (
            'policy = "first_available"\nslow_start = "30s"',
            ['8: pools.web.slow_start: has no effect with policy = "first_available", which does not look at weights; choose another policy, or leave out slow_start'],
        ),
        ('policy = "first_available"\nslow_start = "0s"', []),
        ('policy = "first_available"\nslow_start = 30', []),
    ],
)  # fmt: skip
def test_keys_that_do_not_go_together_are_found(rest: str, messages: list[str]) -> None:
    assert found(GOOD + rest) == messages
