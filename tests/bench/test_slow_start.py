"""The picture of slow start: measured shares lie on the curve, and the one in the docs is the present one."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.slow_start import POLICIES, SECONDS, SLOW_START, measure, render

PICTURE = Path(__file__).parents[2] / "docs" / "slow-start.svg"


def curve(second: float) -> float:
    return min(0.1 + 0.9 * second / SLOW_START, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "tolerance"), [("round_robin", 0.06), ("least_connections", 0.07)])
def test_measured_shares_lie_on_the_curve(policy: str, tolerance: float) -> None:
    """A step is 5 %, and a second has parts of two steps."""
    shares = measure(policy, rate=1000)
    assert len(shares) == SECONDS
    for second, share in enumerate(shares):
        assert abs(share - curve(second + 0.5)) <= tolerance


def test_the_picture_shows_every_policy_and_second() -> None:
    picture = ElementTree.fromstring(render(dict.fromkeys(POLICIES, (0.5, 0.6))))
    names = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert set(POLICIES) <= set(names)
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}circle"))) == len(POLICIES) * 3


def test_the_picture_in_the_docs_is_drawn_so() -> None:
    points = {
        line.get("points") for line in ElementTree.parse(PICTURE).iter("{http://www.w3.org/2000/svg}polyline")
    }
    drawn = ElementTree.fromstring(render({}))
    assert {line.get("points") for line in drawn.iter("{http://www.w3.org/2000/svg}polyline")} == points
