# ruff: noqa: E501  messages stand here word for word, one on a line
"""Limits: their values, and what they are together with listeners."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from lbproc.config.limits import LimitConfig
from lbproc.units import Rate
from tests.config.document import found


def test_a_burst_is_what_a_second_lets_in_unless_it_is_said() -> None:
    limit = LimitConfig.model_validate({"new_connections": "2k/minute"})
    assert (limit.key, limit.new_connections, limit.burst) == ("client_ip", Rate(2000, 60), 33)
    assert LimitConfig.model_validate({"new_connections": "2k/minute", "burst": 5}).burst == 5
    assert LimitConfig.model_validate({"new_connections": "5/hour"}).burst == 1
    assert LimitConfig.model_validate({"connections": 5}).burst is None
    assert limit.model_dump(exclude_none=True)["new_connections"] == "2k/minute"
    assert LimitConfig.model_validate(limit.model_dump(exclude_none=True)) == limit


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"key": "bearer"}, '"bearer" is not what a limit counts by; write "client_ip" or "listener"'),
        ({"connections": 0}, "is 0, which is less than 1; write a whole number of 1 to 1000000"),
        ({"new_connections": 100}, 'is an integer, not a rate; write a rate such as "100/second"'),
        ({"new_connections": "100"}, '"100" is not a rate; write a whole number and second, minute, hour or day, such as "100/second" or "100k/m"'),
        ({"new_connections": "9000000M/s"}, '"9000000M/s" is too much; write at most "1000M" in each period'),
    ],
)  # fmt: skip
def test_wrong_values(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        LimitConfig.model_validate(keys)
    assert caught.value.errors()[0]["msg"] == message  # the default of burst may follow from another one


LISTENER = '[listeners.a]\nbind = "127.0.0.1:80"\npool = "x"\nlimits = ["per_ip"]\n'
POOL = '[pools.x]\nbackends = ["a:1"]\n'
LIMIT = "[limits.per_ip]\nconnections = 5\n"


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (LISTENER + POOL + LIMIT, []),
        (LISTENER + POOL + LIMIT.replace("connections = 5", 'new_connections = "5/s"\nburst = 9'), []),
        (LISTENER + POOL, ['4: listeners.a.limits[0]: there is no limit "per_ip"; add [limits.per_ip] with connections = 50']),
        (LISTENER.replace('["per_ip"]', '"per_pi"') + POOL + LIMIT, ['4: listeners.a.limits: there is no limit "per_pi"; did you mean "per_ip"?']),
        (LISTENER.replace('["per_ip"]', '["per_ip", "per_ip"]') + POOL + LIMIT, ['4: listeners.a.limits[1]: "per_ip" is there twice; keep one of them']),
        (LISTENER + POOL + "[limits.per_ip]", ['7: limits.per_ip: limits nothing; add connections = 50, or new_connections = "100/second"']),
        (LISTENER + POOL + LIMIT + "burst = 3", ['9: limits.per_ip.burst: is of new_connections, which is not there; add new_connections = "100/second", or leave it out']),
        (LISTENER + POOL + LIMIT + '[limits."a b"]\nconnections = 5', ['9: limits."a b": "a b" is not a name; write 1 to 64 letters, digits, "_", "-" or ".", beginning with a letter or digit']),
    ],
)  # fmt: skip
def test_limits_are_there_and_limit_something(text: str, messages: list[str]) -> None:
    assert found(text) == messages
