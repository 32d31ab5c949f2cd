"""Scripts that chance seldom draws, each of which has caught a defect that was put in to try the judges."""

from __future__ import annotations

from tests.proxy.machine.messages import Answer, Exchange, Request
from tests.proxy.machine.script import Action, Script

GET = Exchange()
FLOW = Action("flow", amount=0)
"""One round, in which a polite client gets one answer."""
MIDWAY = Action("midway", amount=0)
"""The next answer, but for its last byte."""


def _asked(
    *exchanges: Exchange, then: tuple[Action, ...], ending: str = "cooperate", pace: int = 1 << 20
) -> Script:
    """One client that waits for each answer, and sends its first request before anything else happens."""
    return Script(
        clients=(exchanges,),
        actions=(FLOW, *then),
        ending=ending,
        pace=(1 << 20, 1 << 20, 1 << 20, pace),
        polite=True,
    )


def _answered(**answer: object) -> Exchange:
    return Exchange(answers=(Answer(**answer),))  # type: ignore[arg-type]


def _slow_head(start: int) -> tuple[Action, ...]:
    """The first bytes of a head, some seconds before the others."""
    return (Action("send", amount=start), Action("advance", amount=8))


POST = Request(method=b"POST", framing="length", size=100)
SWITCH = Request(upgrades=True)

STORIES = {
    "stopped in the middle of an answer": _asked(GET, GET, then=(MIDWAY,), ending="stop"),
    "stopped before the answer": _asked(GET, GET, then=(Action("send"),), ending="stop"),
    "told to finish between two requests": _asked(GET, GET, then=(Action("drain"), FLOW)),
    "told to leave in the middle of an answer": _asked(GET, GET, GET, then=(MIDWAY, Action("leave"), FLOW)),
    "client leaves in the middle of an answer": _asked(
        GET, GET, then=(MIDWAY, Action("client_end", amount=2), FLOW)
    ),
    "client half-closes while it waits": _asked(
        GET, GET, then=(Action("send"), Action("client_end", amount=0), FLOW)
    ),
    "idle for as long as it may": _asked(GET, GET, GET, then=(FLOW,), ending="idle"),
    "two heads that come slowly": _asked(
        GET, GET, GET, then=(*_slow_head(10), FLOW, *_slow_head(10), FLOW, *_slow_head(10))
    ),
    "answer that is never finished": _asked(GET, GET, then=(MIDWAY, Action("advance", amount=12))),
    "excess with the last piece of an answer": _asked(
        GET, _answered(size=500, spoil="excess"), GET, then=(FLOW,) * 3, pace=300
    ),
    "connection ends within a body": _asked(
        GET, _answered(size=500, spoil="truncated", end="close"), GET, then=(FLOW,) * 3, pace=300
    ),
    "connection ends within a chunk": _asked(
        GET,
        _answered(framing="chunked", size=500, spoil="truncated", cut=40, end="half"),
        then=(FLOW,) * 3,
        pace=300,
    ),
    "reset within a head on a connection used before": _asked(
        GET, _answered(spoil="truncated", cut=30, end="reset"), GET, then=(FLOW,) * 4
    ),
    "reset in place of an answer on a connection used before": _asked(
        GET, GET, GET, then=(Action("send"), Action("backend_end", amount=2), FLOW)
    ),
    "reset of a request that may not be repeated": _asked(
        GET, Exchange(POST), GET, then=(Action("send"), Action("backend_end", amount=2), FLOW)
    ),
    "backend that goes in the middle of an upload": _asked(
        GET, Exchange(POST), GET, then=(Action("send", amount=120), Action("backend_end", amount=2), FLOW)
    ),
    "upload that is answered early": _asked(
        GET,
        Exchange(POST, (Answer(early=True),)),
        GET,
        then=(Action("send", amount=120), Action("take"), Action("answer"), FLOW),
    ),
    "client half-closes within an upload that is answered early": _asked(
        GET,
        Exchange(POST, (Answer(early=True),)),
        GET,
        then=(
            Action("send", amount=120),
            Action("take"),
            Action("client_end", amount=0, at_once=True),
            Action("answer"),
        ),
    ),
    "tunnel that its backend resets": _asked(
        Exchange(SWITCH, (Answer(status=101, tunnel=5, end="reset"),)), GET, then=(FLOW, FLOW)
    ),
    "tunnel that its client half-closes": _asked(
        Exchange(SWITCH, (Answer(status=101, tunnel=5, end="keep"),)),
        GET,
        then=(
            Action("send", amount=20),
            Action("client_end", amount=0),
            FLOW,
            Action("backend_end", amount=1),
        ),
    ),
    "tunnel that its client resets": _asked(
        Exchange(SWITCH, (Answer(status=101, tunnel=5, end="keep"),)),
        GET,
        then=(Action("send", amount=20), Action("client_end", amount=2)),
    ),
}
