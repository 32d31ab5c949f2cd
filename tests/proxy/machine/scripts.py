"""What is drawn: scripts of peers that behave, and of peers that do anything.

Each kind of script keeps to some kinds of exchanges and of actions, so that rare things are not rare where
they belong: what needs two requests on one connection and a reset in the right moment would hardly ever
happen if all were equally likely everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from hypothesis import strategies as st

from tests.proxy.machine.exchanges import Taste, exchanges, usually
from tests.proxy.machine.script import Action, Script

Actions = st.SearchStrategy[tuple[Action, ...]]

# Actions ----------------------------------------------------------------------------------------------------

_AMOUNTS = (1 << 20, 1, 2, 3, 7, 17, 40, 1 << 20, 64, 120, 200, 500, 1500, 1 << 20, 0, 4, 5, 8, 12, 24, 27)
_TUNINGS = [
    (who, amount, at_once)
    for at_once, amount, who in product((False, False, False, True), _AMOUNTS, range(4))
]


def _action(*kinds: str) -> st.SearchStrategy[Action]:
    return st.builds(
        lambda kind, tuning: Action(kind, *tuning), st.sampled_from(kinds), st.sampled_from(_TUNINGS)
    )


def _in_a_row(*parts: st.SearchStrategy[Sequence[Action]]) -> Actions:
    return st.tuples(*parts).map(lambda drawn: tuple(action for part in drawn for action in part))


def _many(tens: int, *kinds: str) -> Actions:
    """Hypothesis likes short lists, and one list of 50 is about as long as one of 10."""
    return _in_a_row(*(st.lists(_action(*kinds), max_size=10),) * tens)


_ORDERLY = ("flow", "flow", "send", "send", "send", "read", "take", "take", "answer", "answer", "stir")
_MISHAPS = (
    "advance", "advance", "advance", "client_end", "client_end", "client_end", "backend_end", "backend_end",
    "backend_end", "blurt", "blurt", "refuse", "accept", "accept", "publish", "publish", "age", "strand",
    "strand", "strand",
)  # fmt: skip


def _break(*kinds: str) -> Actions:
    """Some traffic, then everybody in the middle of something, then what must not hurt."""
    return _in_a_row(
        st.lists(_action("flow"), min_size=1, max_size=3),
        st.tuples(_action("midway", "midway", "midway", "strand", "send")),
        st.lists(_action("answer", "take", "read", "flow", "midway", *kinds), max_size=4),
    )


_midway = st.tuples(_action("flow"), _action("midway"))
_last = st.just(()) | _midway | _midway | _break("drain", "leave", "leave", "advance")

_calm = _many(4, *_ORDERLY)
_faults = _in_a_row(_many(6, *_ORDERLY * 12, *("flow",) * 20, *("strand", "midway") * 10, *_MISHAPS), _last)
_storm = _in_a_row(_many(7, *(*_ORDERLY, "midway") * 4, *_MISHAPS), _last)
_breaks = _in_a_row(_break(*_MISHAPS), _break(*_MISHAPS, *("leave", "drain") * 4), _last)

# Scripts ----------------------------------------------------------------------------------------------------

_ENDINGS = ("cooperate", "cooperate", "idle", "vanish", "leave", "reset", "reset", "stop", "stop")


@st.composite
def _pieces(draw: st.DrawFn, *, fine: bool) -> dict[str, Any]:
    """In what pieces bytes move: all at once as a rule, else in small ones or in large ones."""
    if draw(st.booleans()):
        return {}
    room = st.sampled_from((65536, 65536, 200, 50, 7, 2) if fine else (65536, 10000, 1000))
    pace = st.sampled_from((1 << 20, 300, 100, 40) if fine else (1 << 20, 20000, 3000))
    return {
        "capacities": draw(st.tuples(room, room, room, room)),
        "fragment": draw(st.sampled_from((1 << 20, 1 << 20, 64, 3, 1) if fine else (1 << 20, 1000))),
        "pace": draw(st.just(Script().pace) | st.tuples(pace, pace, pace, pace)),
    }


@st.composite
def _scripts(draw: st.DrawFn, actions: Actions, *kinds: str, orderly: bool = False) -> Script:
    taste = Taste(kinds, fine=draw(usually(True, False, weight=2)), sound=orderly)
    asked = st.lists(exchanges(taste), min_size=1, max_size=4)
    again = st.sampled_from((1, 2, 4) if orderly else (1, 4, 8))
    clients = draw(st.lists(st.tuples(asked, again), min_size=1, max_size=3))
    return Script(
        clients=tuple(tuple(asked) * times for asked, times in clients),
        actions=draw(actions),
        ending=draw(st.sampled_from(("cooperate", "idle") if orderly else _ENDINGS)),
        backends=draw(st.sampled_from((1, 1, 2, 3))),
        cap=None if orderly else draw(st.sampled_from((None, None, None, 1, 2))),
        polite=draw(usually(True, False, weight=2)),
        orderly=orderly,
        **draw(_pieces(fine=taste.fine)),
    )


_MIXED = ("everyday", "everyday", "upload", "odd", "switch")

ORDERLY = {
    "everyday": _scripts(_calm, "everyday", orderly=True),
    "mixed": _scripts(_calm, *_MIXED, orderly=True),
}
"""Everybody behaves: every request gets exactly its answer."""

WILD = {
    "everyday-breaks": _scripts(_breaks, "everyday"),
    "everyday-faults": _scripts(_faults, "everyday"),
    "everyday-storm": _scripts(_storm, "everyday"),
    "mixed-breaks": _scripts(_breaks, *_MIXED, "spoiled"),
    "mixed-faults": _scripts(_faults, *_MIXED, "spoiled"),
    "mixed-storm": _scripts(_storm, *_MIXED, "spoiled"),
    "uploads": _scripts(_breaks | _storm, "upload", "upload", "everyday"),
    "tunnels": _scripts(_breaks, "switch", "switch", "everyday"),
}
"""Anything may happen to anybody at any moment."""
