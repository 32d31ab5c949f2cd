"""A machine that plays clients, backends and time against the data path, and judges every byte.

What is drawn is a script (``machine.scripts``); the world plays it (``machine.world``) with the proxy in the
middle, and the judges (``machine.client_view``, ``machine.backend_view``, ``machine.books``) read along. A
script is drawn whole, because one run of trio plays it. A failure shows the smallest one that fails, which
``play(Script(...))`` plays again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.proxy.machine.scripts import ORDERLY, WILD
from tests.proxy.machine.stories import STORIES
from tests.proxy.machine.world import play

SHORT = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=230,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
LONG = settings(SHORT, derandomize=False, max_examples=2_500)

Progress = Callable[[str], None]


@pytest.fixture
def progress(capsys: pytest.CaptureFixture[str]) -> Progress:
    """Says, now and then, how many examples of what have been played."""
    played = 0

    def count(what: str) -> None:
        nonlocal played
        played += 1
        if played % 500 == 0:
            with capsys.disabled():
                sys.stdout.write(f"\n{played} scripts of {what}")
                sys.stdout.flush()

    return count


@pytest.mark.parametrize("story", STORIES)
def test_rare_stories_end_well(story: str) -> None:
    play(STORIES[story])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ORDERLY)
@settings(SHORT)
@given(data=st.data())
def test_every_request_gets_its_answer_when_everybody_behaves(kind: str, data: st.DataObject) -> None:
    play(data.draw(ORDERLY[kind]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", WILD)
@settings(SHORT)
@given(data=st.data())
def test_nothing_leaks_and_nothing_is_mixed_up_whatever_the_peers_do(kind: str, data: st.DataObject) -> None:
    play(data.draw(WILD[kind]))


@pytest.mark.soak
@pytest.mark.parametrize("kind", ORDERLY)
@settings(LONG)
@given(data=st.data())
def test_every_request_gets_its_answer_in_thousands_of_orderly_scripts(
    kind: str, data: st.DataObject, progress: Progress
) -> None:
    play(data.draw(ORDERLY[kind]))
    progress(kind)


@pytest.mark.soak
@pytest.mark.parametrize("kind", WILD)
@settings(LONG)
@given(data=st.data())
def test_nothing_leaks_and_nothing_is_mixed_up_in_thousands_of_wild_scripts(
    kind: str, data: st.DataObject, progress: Progress
) -> None:
    play(data.draw(WILD[kind]))
    progress(kind)
