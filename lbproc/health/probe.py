"""One probe: connect, shake hands where that is asked for, ask, judge, within one deadline.

Owns the order and the deadline. Whatever a backend does, a probe ends in time, with a reason of one line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from lbproc.health.datagrams import open_datagrams
from lbproc.health.wire import Encryption, Open, ProbeFailed, ProbeImpossible, encrypt, greet, open_stream
from lbproc.units import render_duration

if TYPE_CHECKING:
    from trio.abc import Stream

    from lbproc.health.questions import Question
    from lbproc.types import Address, Seconds


@dataclass(frozen=True, slots=True)
class Probe:
    """How a backend is asked.

    Attributes:
        addresses: where, best first; none while a host name is not resolved.
        question: what.
        encryption: how TLS is spoken; None: it is not.
        timeout: for all of it.
        greeting: is sent before anything else: a PROXY header.
        is_datagram: the question is one datagram, not said over a connection.
    """

    addresses: tuple[Address, ...]
    question: Question
    encryption: Encryption | None
    timeout: Seconds
    greeting: bytes = b""
    is_datagram: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a probe found.

    Attributes:
        passed: None when the probe could not be made, which says nothing about the backend.
        reason: why it did not pass; empty when it did.
        seconds: how long it took.
    """

    passed: bool | None
    reason: str
    seconds: Seconds


async def run_probe(probe: Probe, connect: Open = open_stream) -> Outcome:
    """Probes once."""
    began_at = trio.current_time()
    passed: bool | None = True
    reason = ""
    try:
        await _in_time(probe, connect)
    except ProbeFailed as failure:
        passed, reason = False, failure.reason
    except ProbeImpossible as failure:
        passed, reason = None, failure.reason
    return Outcome(passed, reason, trio.current_time() - began_at)


async def _in_time(probe: Probe, connect: Open) -> None:
    if not probe.addresses:
        raise ProbeImpossible("its host name is not resolved")
    missing = "connection"
    stream: Stream | None = None
    with trio.move_on_after(probe.timeout):
        try:
            if probe.is_datagram:
                stream = open_datagrams(probe.addresses)
            else:
                stream = await connect(probe.addresses, probe.timeout)
            if probe.greeting:
                await greet(stream, probe.greeting)
            if probe.encryption is not None:
                missing = "TLS handshake"
                stream = await encrypt(stream, probe.encryption)
            missing = "answer"
            await probe.question.ask(stream)
            return
        finally:
            if stream is not None:
                await trio.aclose_forcefully(stream)
    raise ProbeFailed(f"no {missing} within {render_duration(probe.timeout)}")
