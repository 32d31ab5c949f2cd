# ruff: noqa: E501  messages stand here word for word, one on a line
from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from lbproc.config.retries import FAULT_CONDITIONS, RetriesConfig
from lbproc.core.retry import FAULTS
from tests.config.refusal import accepted, refusal
from tests.config.test_crosscheck import GOOD, found

RETRIES = TypeAdapter(RetriesConfig)


def test_an_empty_table_has_the_documented_defaults() -> None:
    assert accepted(RETRIES, {}) == RetriesConfig(
        attempts=1, on=("reset", "timeout"), budget=0.2, per_try_timeout=None, max_body="64KiB"
    )


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"on": "503"}, ("503",)),
        ({"on": ["reset", "timeout", "malformed"]}, ("reset", "timeout", "malformed")),
        ({"on": ["408", "429", "500", "599"]}, ("408", "429", "500", "599")),
    ],
)
def test_conditions_are_names_and_statuses(given: dict[str, Any], kept: tuple[str, ...]) -> None:
    assert accepted(RETRIES, given).on == kept


def test_the_conditions_are_those_that_the_decision_knows() -> None:
    assert tuple(FAULTS) == FAULT_CONDITIONS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"on": ["resett"]}, '"resett" is nothing that is tried again; did you mean "reset"? write "reset", "timeout", "malformed", "408", "429" or a status of "500" to "599"'),
        ({"on": ["404"]}, '"404" is nothing that is tried again; write "reset", "timeout", "malformed", "408", "429" or a status of "500" to "599"'),
        ({"on": [503]}, 'is an integer, not a string; write it in quotes: "503"'),
        ({"on": [True]}, 'is a boolean, not a condition; write a condition such as "reset" or "503"'),
        ({"on": []}, 'is an empty list; write at least one string such as "timeout", or leave out the key'),
        ({"attempts": 0}, "is 0, which is less than 1; write a whole number of 1 to 10"),
        ({"attempts": 11}, "is 11, which is more than 10; write a whole number of 1 to 10"),
        ({"budget": 0}, "is 0, which is less than 0.001; write a share of 0.001 to 1, such as 0.2; for no retries leave out the whole table"),
        ({"budget": 20.0}, "is 20, which is more than 1; write a share of 0.001 to 1, such as 0.2; for no retries leave out the whole table"),
        ({"budget": float("nan")}, "is nan, which is less than 0.001; write a share of 0.001 to 1, such as 0.2; for no retries leave out the whole table"),
        ({"budget": "20%"}, "is a string, not a share of the requests; write a share of the requests such as 0.2, which is one retry for every five requests"),
        ({"budget": True}, "is a boolean, not a share of the requests; write a share of the requests such as 0.2, which is one retry for every five requests"),
        ({"max_body": "17MiB"}, '"17MiB" is too large; write a size of "0B" to "16MiB", such as "64KiB"'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_what_would_be_right(given: dict[str, Any], message: str) -> None:
    assert refusal(RETRIES, given) == message


def test_a_whole_budget_may_be_written_as_an_integer() -> None:
    assert accepted(RETRIES, {"budget": 1}).budget == 1.0


@pytest.mark.parametrize(
    ("table", "messages"),
    [
        ('retries = { on = ["timeout"], per_try_timeout = "5s" }', []),
        ('retries = { attempts = 3 }', []),
        ('retries = { per_try_timeout = "never" }', []),  # wrong in itself, and said elsewhere
        ('retries = { on = ["timeout"], per_try_timeout = "99h" }\ntimeouts = 5', []),
        (
            'retries = { on = "reset", per_try_timeout = "5s" }',
            ['7: pools.web.retries.per_try_timeout: ends a try that is not tried again, because on lacks "timeout"; add "timeout" to on, or leave it out and write timeouts.response'],
        ),
        (
            'retries = { on = "timeout", per_try_timeout = "62s" }',
            ['7: pools.web.retries.per_try_timeout: "62s" is never reached: timeouts.connect and timeouts.response end a try after "62s"; write a shorter one, or leave it out'],
        ),
        (
            'retries = { on = "timeout", per_try_timeout = "4s" }\ntimeouts = { connect = "1s", response = "2s" }',
            ['7: pools.web.retries.per_try_timeout: "4s" is never reached: timeouts.connect and timeouts.response end a try after "3s"; write a shorter one, or leave it out'],
        ),
    ],
)  # fmt: skip
def test_a_timeout_of_tries_has_to_have_an_effect(table: str, messages: list[str]) -> None:
    assert found(GOOD + table) == messages
