"""Request and response heads as values (RFC 9110 section 6, RFC 9112 section 2).

Owns what is known of a head once it was read. Reads nothing: ``head`` does, with ``lane`` for the ordinary
ones. Invariant: a ``RequestHead`` that exists can be forwarded. Two careful readers cannot disagree on where
it ends, on where its body ends, or on which host it names.
"""

from __future__ import annotations

from lbproc.core.http.framing import Framing
from lbproc.core.http.headers import HeaderFields
from lbproc.core.http.value import value


@value
class RequestHead:
    """A request head that may be forwarded.

    Attributes:
        method: as sent; methods are case-sensitive.
        target: what is forwarded: origin-form, or ``*``.
        http10: the client speaks HTTP/1.0.
        headers: the fields that were kept, in the order sent: lower-case name, name as sent, value.
        framing: how the body ends.
        host: the authority as sent, b"" when an HTTP/1.0 client sent none.
        hostname: the host in lower case without port and last dot; an IPv6 literal keeps its brackets.
        path: the target up to ``?``, as sent.
        query: the target after ``?``, as sent.
        keep_alive: the client would like to send another request on this connection.
        expects_continue: the client waits for a 100 before it sends the body.
        upgrade: the protocols it offers to switch to, or None. Never HTTP/2 over clear text.
        connection_tokens: the options of ``Connection``, in lower case.
    """

    method: bytes
    target: bytes
    http10: bool
    headers: HeaderFields
    framing: Framing
    host: bytes
    hostname: str
    path: bytes
    query: bytes
    keep_alive: bool
    expects_continue: bool
    upgrade: bytes | None
    connection_tokens: frozenset[bytes]

    def values(self, name: bytes) -> list[bytes]:
        """All values of a field by its lower-case name, in the order sent."""
        return [value for lower, _, value in self.headers if lower == name]


@value
class ResponseHead:
    """A response head that may be forwarded.

    Attributes:
        status: 100 to 599.
        reason: as sent, possibly b"".
        http10: the backend speaks HTTP/1.0.
        headers: in the order sent: lower-case name, name as sent, value.
        framing: how the body ends.
        keep_alive: the backend connection may serve another request once the body is complete.
        upgrade: the protocol that a 101 switches to, or that a 426 asks for; else None.
        connection_tokens: the options of ``Connection``, in lower case.
    """

    status: int
    reason: bytes
    http10: bool
    headers: HeaderFields
    framing: Framing
    keep_alive: bool
    upgrade: bytes | None
    connection_tokens: frozenset[bytes]

    def values(self, name: bytes) -> list[bytes]:
        """All values of a field by its lower-case name, in the order sent."""
        return [value for lower, _, value in self.headers if lower == name]
