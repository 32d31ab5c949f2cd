"""One listener of a worker: what is common to all, whatever their clients speak, and what becomes of it.

A listener is made anew for each generation of the configuration, as is everything that hangs on it. What goes
on under its name is its *lineage*: connections find the newest form of their listener there, and learn there
that it was removed. Each protocol has a listener of its own. Those of streams make what serves a connection,
with `StreamListener.open`; datagrams are no connections, and are taken from their sockets by a server.

Invariants:
- Nothing here names a later generation, except for the lineage, which names the newest alone. And nothing
  that a listener is made of names the listener. So an old one goes with its last request, without a garbage
  collection.
- A lineage that has ended stays ended: a listener that comes again under the same name begins another one,
  and so does one of the same name whose connections are of another kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from lbproc.config.model import ListenerConfig
    from lbproc.net.transport import Transport
    from lbproc.proxy.arrival import Arrival
    from lbproc.proxy.client import Client
    from lbproc.proxy.context import WorkerContext
    from lbproc.proxy.door import Door
    from lbproc.proxy.entrance import Entrance
    from lbproc.proxy.logged import LogFormat

_Form = TypeVar("_Form", bound="Listener")


class Lineage(Generic[_Form]):
    """One listener through the generations.

    Attributes:
        current: its newest form; None: it was removed.
        draining: every response announces the end of its connection.
        leaving: the grace of connections without a request is over.
    """

    __slots__ = ("current", "draining", "leaving")

    def __init__(self, current: _Form) -> None:
        self.current: _Form | None = current
        self.draining = False
        self.leaving = False

    def end(self) -> None:
        """The listener is removed. Its connections end with what they serve."""
        self.current = None
        self.draining = True


class Listener:
    """One listener, as one generation of the configuration has it.

    Args:
        name: of its table in the configuration.
        config: what the operator asked for.
        generation: of the configuration.
        log_format: how what is served here is logged.

    Attributes:
        entrance: which connections and sessions are let in; None: all.
        door: what is asked of them before their protocol begins; None: nothing.
    """

    __slots__ = ("config", "door", "entrance", "generation", "lineage", "log_format", "name", "timeouts")

    def __init__(self, name: str, config: ListenerConfig, generation: int, log_format: LogFormat) -> None:
        self.name = name
        self.config = config
        self.generation = generation
        self.log_format = log_format
        self.timeouts = config.timeouts
        self.entrance: Entrance | None = None
        self.door: Door | None = None
        self.lineage: Lineage[Any] = Lineage(self)

    def continues(self, before: Listener) -> bool:
        """Whether connections of that form, of its name, may go on as connections of this one."""
        return type(self) is type(before)

    def succeed(self, before: Listener) -> None:
        """Takes the place of the form that it had, which it `continues`."""
        self.lineage = before.lineage
        self.lineage.current = self

    def retire(self) -> None:
        """Another form has its place, or none. It may still be asked, and remembers nothing for that."""


class StreamListener(Listener, ABC):
    """A listener of connections: it makes what serves them. All else is as in every listener."""

    __slots__ = ()

    @abstractmethod
    def open(self, transport: Transport, context: WorkerContext) -> Client:
        """Makes what serves a new connection. Does not wait; the connection closes the transport."""

    @abstractmethod
    def begin(
        self, transport: Transport, context: WorkerContext, arrival: Arrival, received: bytes = b""
    ) -> Client:
        """Makes what serves a connection by this protocol, once it is known how it came.

        Args:
            transport: to the client; to what is inside of TLS, if this listener ends that.
            context: the worker's.
            arrival: how it came.
            received: what was read from the transport, and belongs to the protocol.
        """
