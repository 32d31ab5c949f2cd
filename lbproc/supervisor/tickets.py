"""Whether the workers share the keys of session tickets: tried once, when a listener first wants it.

Owns when it is tried and that a failure is told. The trial itself runs in a process of its own; here it costs
some hundredths of a second, once in a run, at the start or in the process that loads a configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lbproc.shm.clock import monotonic_ns
from lbproc.telemetry.events import Event

if TYPE_CHECKING:
    from lbproc.config.model import Config
    from lbproc.config.tls import CertificateConfig
    from lbproc.net.tls.tickets import SharedTickets
    from lbproc.telemetry.log import ErrorLog
    from lbproc.types import Seconds

TICKETS_FAILED = "the OpenSSL of this Python does not take the keys of tickets"


def shared_now() -> Seconds:
    """The clock that all processes share, for epochs of keys."""
    return monotonic_ns() / 1e9


def adapt_and_prove(
    adapt: Callable[[Config], Config], tickets: SharedTickets | None, config: Config
) -> Config:
    """Does what is to be done with a configuration that was just loaded; in the process that loads."""
    config = adapt(config)
    prove_tickets(tickets, config)
    return config


def prove_tickets(tickets: SharedTickets | None, config: Config) -> None:
    """Finds out whether keys can be shared, if a listener wants it and nobody knows."""
    certificate = _certificate_of(config)
    if tickets is not None and certificate is not None:
        tickets.prove(certificate.cert.content, certificate.key.content)


def tell_of_tickets(tickets: SharedTickets | None, config: Config, log: ErrorLog) -> None:
    """Tells, once in a run, that keys are wanted and cannot be shared."""
    if tickets is None or tickets.is_told or tickets.works or _certificate_of(config) is None:
        return
    tickets.is_told = True
    log.write(Event.TICKETS_NOT_SHARED, reason=TICKETS_FAILED)


def _certificate_of(config: Config) -> CertificateConfig | None:
    """A certificate of a listener whose clients may resume sessions; None: there is no such listener."""
    for listener in config.listeners.values():
        if listener.tls is not None and listener.tls.tickets:
            return listener.tls.certificates[0]
    return None
