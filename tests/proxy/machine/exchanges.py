"""What is drawn of single exchanges: requests, and what backends answer to them.

The simplest comes first everywhere, because examples shrink towards it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

from hypothesis import strategies as st

from tests.proxy.machine.messages import CURL, HEADERS, MALFORMED, PLAIN, Answer, Exchange, Request

T = TypeVar("T")


@dataclass(frozen=True)
class Taste:
    """What the exchanges of a script are like.

    Attributes:
        kinds: of requests: ``everyday``, ``upload``, ``odd``, ``switch``, ``spoiled``.
        fine: bodies are small.
        sound: no answer is broken.
    """

    kinds: tuple[str, ...]
    fine: bool
    sound: bool


def usually(usual: T, *others: T, weight: int) -> st.SearchStrategy[T]:
    """The usual value ``weight`` times as often as each other one."""
    return st.sampled_from((usual,) * weight + others)


_SMALL = (2, 0, 1, 5, 16, 17, 60, 100)
_UPLOADS = {True: _SMALL, False: (2, 0, 17, 1023, 4000)}
_DOWNLOADS = {True: _SMALL, False: (2, 0, 17, 1023, 4000, 16384, 40000, 70000)}
_flag = st.booleans()
_seldom = usually(False, True, weight=4)

# Requests ---------------------------------------------------------------------------------------------------

_POSTS = [
    Request(method=method, framing="length", size=size) for method, size in product((b"POST", b"PUT"), _SMALL)
]
_everyday_requests = st.sampled_from([Request(headers=headers) for headers in HEADERS[:3]] * 4 + _POSTS)
_odd_requests = st.builds(
    Request,
    method=st.sampled_from((b"GET", b"HEAD", b"OPTIONS")),
    unique=_flag,
    unrouted=_seldom,
    http10=_seldom,
    headers=st.sampled_from(HEADERS),
    connection=st.sampled_from(((), (b"keep-alive",), (), (b"close",))),
    empty_line=_seldom,
)
_switches = st.builds(
    Request,
    http10=usually(False, True, weight=9),
    headers=st.sampled_from(HEADERS),
    expects=_seldom,
    upgrades=st.just(True),
)
_spoiled_requests = st.sampled_from(
    [Request(spoil=spoil) for spoil in MALFORMED]
    + [Request(method=b"POST", framing="length", size=5, spoil="too-long")]
    + [
        Request(method=b"POST", framing="chunked", size=6, spoil=spoil, expects=expects)
        for spoil, expects in product(("bad-chunk", "over-limit"), (False, True))
    ]
)


def _uploads(sizes: tuple[int, ...]) -> st.SearchStrategy[Request]:
    return st.builds(
        Request,
        method=st.sampled_from((b"POST", b"PUT", b"DELETE")),
        unique=_flag,
        framing=st.sampled_from(("length", "chunked")),
        size=st.sampled_from(sizes),
        expects=_seldom,
    )


_REQUESTS = {
    fine: {
        "everyday": _everyday_requests,
        "upload": _uploads(_UPLOADS[fine]),
        "odd": _odd_requests,
        "switch": _switches,
        "spoiled": _spoiled_requests,
    }
    for fine in (True, False)
}

# Answers ----------------------------------------------------------------------------------------------------


def _everyday_answers(sizes: tuple[int, ...]) -> st.SearchStrategy[Answer]:
    kinds = product((PLAIN, CURL), ("length", "chunked"), sizes)
    return st.sampled_from(
        [Answer(framing=framing, size=size, headers=headers) for headers, framing, size in kinds]
    )


def _odd_answers(sizes: tuple[int, ...]) -> st.SearchStrategy[Answer]:
    return st.builds(
        Answer,
        interims=usually((), (100,), (103, 100), (102, 102, 102), weight=4),
        status=st.sampled_from((200, 200, 200, 204, 304, 404, 500)),
        framing=st.sampled_from(("length", "chunked", "close")),
        size=st.sampled_from(sizes),
        http10=_seldom,
        headers=st.sampled_from(HEADERS),
        connection=usually((), (b"close",), (b"keep-alive",), weight=4),
        end=usually("keep", "close", "half", weight=3),
    )


def _switching_answers(sizes: tuple[int, ...]) -> st.SearchStrategy[Answer]:
    return st.builds(
        Answer,
        status=st.just(101),
        interims=usually((), (103,), weight=3),
        end=st.sampled_from(("keep", "close", "half")),
        tunnel=st.sampled_from(sizes),
    )


_ANSWERS = {
    fine: {
        "everyday": _everyday_answers(_DOWNLOADS[fine]),
        "odd": _odd_answers(_DOWNLOADS[fine]),
        "switch": _switching_answers(_DOWNLOADS[fine]),
    }
    for fine in (True, False)
}

_spoils = st.sampled_from((
    "truncated", "truncated", "truncated", "excess", "excess", "excess", "empty", "empty", "malformed",
    "both", "bad-chunk", "bad-chunk",
))  # fmt: skip
_ends = st.sampled_from(("keep", "reset", "close", "half", "keep", "reset"))
_cuts = st.sampled_from((1, 2, 3, 5, 7, 25, 60, 110, 1000))


@st.composite
def exchanges(draw: st.DrawFn, taste: Taste) -> Exchange:
    request = draw(_REQUESTS[taste.fine][draw(st.sampled_from(taste.kinds))])
    kinds = ("switch", "switch", "odd") if request.upgrades else ("everyday", "odd")
    is_plain = taste.kinds == ("everyday",)
    answer = draw(_ANSWERS[taste.fine]["everyday" if is_plain else draw(st.sampled_from(kinds))])
    if request.framing != "none":
        answer = replace(answer, early=draw(_flag))
    if taste.sound:
        return Exchange(request, (_soothed(answer, request),))
    if draw(_seldom):
        broken = replace(answer, spoil=draw(_spoils), end=draw(_ends), cut=draw(_cuts))
        if broken.spoil == "bad-chunk":
            broken = replace(broken, framing="chunked")
        return Exchange(request, (broken, answer) if draw(_flag) else (broken,))
    if answer.status == 101 and draw(_flag):
        answer = replace(answer, end="reset")
    return Exchange(request, (answer,))


def _soothed(answer: Answer, request: Request) -> Answer:
    """The answer of a backend that does nothing wrong: asked for, and ended so that it arrives."""
    if answer.status == 101:
        return answer if not request.http10 else replace(answer, status=200, end="keep")
    if answer.framing == "close":
        return replace(answer, end="half" if answer.early or answer.end == "keep" else answer.end)
    return replace(answer, end="keep") if answer.early else answer
