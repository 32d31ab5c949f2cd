"""Commands name somebody who is there, and what cannot be is refused with what would be right."""

from __future__ import annotations

import pytest

from lbproc.config.model import Config
from lbproc.core.control.membership import Membership
from lbproc.core.control.overrides import Overrides
from lbproc.core.control.steering import (
    SteeringRefusedError,
    availability,
    find_backend,
    find_pool,
    read_state,
    warnings,
    with_backend,
    with_weight,
    without_backend,
)
from lbproc.types import Admin, Health, Row

A, B = "10.0.0.1:80", "10.0.0.2:80"

CONFIG = Config.model_validate(
    {
        "listeners": {"web": {"bind": "127.0.0.1:80", "pool": "web"}},
        "pools": {
            "web": {"backends": [A, {"address": B, "name": "second", "weight": 2}]},
            "api": {"backends": [A]},
            "big": {"backends": [f"10.0.1.{number}:80" for number in range(20)]},
        },
    }
)

UP = (Health.UP, Admin.READY, False)
DRAINED = (Health.UP, Admin.DRAIN, False)
DOWN = (Health.DOWN, Admin.READY, False)


@pytest.fixture
def membership() -> Membership:
    return Membership(CONFIG, lambda *_: Row(0), lambda _: 0)


def refusal(function: object, *arguments: object) -> str:
    assert callable(function)
    with pytest.raises(SteeringRefusedError) as caught:
        function(*arguments)
    return str(caught.value)


def test_who_is_not_there_is_not_found(membership: Membership) -> None:
    assert refusal(find_pool, membership, "wbe") == (
        'no pool named "wbe"; there are "web", "api" and "big"; did you mean "web"?'
    )
    assert (
        refusal(find_backend, membership, "x", "a") == 'no pool named "x"; there are "web", "api" and "big"'
    )
    assert refusal(find_backend, membership, "web", "secnd") == (
        'no backend named "secnd" in pool "web"; there are "10.0.0.1:80" and "second"; did you mean "second"?'
    )
    assert refusal(find_backend, membership, "api", "b") == (
        'no backend named "b" in pool "api"; there is "10.0.0.1:80"'
    )
    assert refusal(find_backend, membership, "big", "\x1b[2J").startswith(
        r'no backend named "\u001B[2J" in pool "big"; there are "10.0.1.0:80", "10.0.1.1:80"'
    )
    assert '"10.0.1.7:80" and 12 more' in refusal(find_backend, membership, "big", "x")
    assert read_state("drain") is Admin.DRAIN
    assert 'no state named "up"' in refusal(read_state, "up")


def test_backends_are_found_by_name_and_address(membership: Membership) -> None:
    assert find_backend(membership, "web", "second") == find_backend(membership, "web", B)


def test_weights_are_those_of_the_configuration(membership: Membership) -> None:
    member = find_backend(membership, "web", "second")
    assert with_weight(membership, "web", member, 7).of("web").weights == {B: 7}
    assert with_weight(membership, "web", member, None) == Overrides()
    assert refusal(with_weight, membership, "web", member, 1001).startswith("weight: ")


def test_a_backend_that_comes_is_as_in_the_configuration(membership: Membership) -> None:
    overrides, address = with_backend(membership, "web", {"address": "c.test:1", "weight": 4, "name": "c"})
    assert address == "c.test:1"
    assert overrides.of("web").added[address].weight == 4


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"address": A}, '"10.0.0.1:80" is a backend of pool "web" already'),
        ({"address": B}, '"10.0.0.2:80" is a backend of pool "web" already, by the name of "second"'),
        (
            {"address": "10.0.0.3:80", "name": "second"},
            '"second" is the name of another backend of pool "web"',
        ),
        ({"address": "nonsense"}, "address: "),
        ({"address": "10.0.0.3:0"}, "address: "),
        ({"address": "10.0.0.3:80", "weight": -1}, "weight: "),
        ({"address": "10.0.0.3:80", "max_connections": 0}, "max_connections: "),
        ({"address": "10.0.0.3:80", "color": "red"}, "color: "),
        ({}, "address: "),
    ],
)
def test_a_backend_that_cannot_come_is_refused(
    membership: Membership, given: dict[str, object], says: str
) -> None:
    assert refusal(with_backend, membership, "web", given).startswith(says)


def test_one_of_the_file_that_was_removed_is_taken_back(membership: Membership) -> None:
    member = find_backend(membership, "web", B)
    membership.override(without_backend(membership, "web", member))
    assert "with another name; add it as it stands there" in refusal(
        with_backend, membership, "web", {"address": B, "name": "x"}
    )
    assert with_backend(membership, "web", {"address": B, "name": "second"}) == (Overrides(), B)
    overrides, _ = with_backend(membership, "web", {"address": B, "weight": 5})
    assert overrides.of("web").weights == {B: 5}
    membership.override(overrides)
    assert find_backend(membership, "web", "second").config.weight == 5


def test_the_only_backend_of_a_pool_stays(membership: Membership) -> None:
    member = find_backend(membership, "api", A)
    assert 'is the only backend of pool "api"' in refusal(without_backend, membership, "api", member)


def test_what_is_left_is_worth_a_warning(membership: Membership) -> None:
    members = membership.members("web")

    def say(*statuses: tuple[Health, Admin, bool], panic: float = 0.0) -> str:
        state = availability(members, statuses, panic)
        return "; ".join(warnings("web", statuses, state))

    assert say(UP, DRAINED) == ""
    assert say(DRAINED, DRAINED) == 'no backend of pool "web" is ready now: its requests get 503'
    assert "that are ready is available" in say(DOWN, DRAINED)
    assert "as if none were down or ejected" in say(DOWN, UP, panic=0.8)
