"""What one worker built from one configuration: its listeners with their routes, and its pools.

Built beside whatever is in use, without touching it, and then put in its place at once (`Runtime.succeed`).
A request keeps the runtime it started with, for as long as it runs.

Invariants:
- A runtime follows only membership that was published for its own generation.
- Nothing that an old runtime is made of is named by the new one, except for what it has inherited.
- Before a worker says that it follows a membership without a pool, it keeps that pool's places in the table
  for requests that may still come to it; until nothing has its balancer any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import ref

import msgpack

from lbproc.proxy.balancer import Balancer
from lbproc.proxy.door import make_door
from lbproc.proxy.entrance import make_entrance
from lbproc.proxy.http_listener import HttpListener
from lbproc.proxy.logged import FORMATS, LogFormat
from lbproc.proxy.passthrough import PassthroughListener
from lbproc.proxy.tcp import TcpListener
from lbproc.proxy.udp import UdpListener

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from lbproc.config.model import Config, ListenerConfig
    from lbproc.proxy.context import WorkerContext
    from lbproc.proxy.listener import Listener
    from lbproc.types import Row

_KINDS: Final[dict[str, Callable[[str, ListenerConfig, dict[str, Balancer], int, LogFormat], Listener]]] = {
    "http": HttpListener,
    "tcp": TcpListener,
    "tls_passthrough": PassthroughListener,
    "udp": UdpListener,
}
"""What makes the listeners of each protocol."""

_NOBODY: frozenset[Row] = frozenset()


class Runtime:
    """Everything that depends on the configuration in one worker.

    Args:
        config: what the operator asked for.
        context: the worker's; only kept, so a runtime may be built in another thread.
        generation: of the configuration.
    """

    def __init__(self, config: Config, context: WorkerContext, generation: int) -> None:
        self.config = config
        self.generation = generation
        self._context = context
        self._epoch = -1
        self._noticed = -1
        self._kept: list[tuple[ref[Balancer], int]] = []
        """Balancers whose pools are gone, of whatever generation, and the entries that keep their places."""
        self.pools = {
            name: Balancer(name, pool, context, context.follow_membership)
            for name, pool in config.pools.items()
        }
        self.listeners = self._make_listeners(config, config.listeners, self.pools)

    def _make_listeners(
        self, config: Config, names: Iterable[str], pools: dict[str, Balancer]
    ) -> dict[str, Listener]:
        log_format = FORMATS[config.log.format]
        found = [(name, config.listeners[name]) for name in names]
        listeners = {
            name: _KINDS[listener.protocol](name, listener, pools, self.generation, log_format)
            for name, listener in found
        }
        for name, listener in listeners.items():
            listener.door = make_door(name, listener.config, pools, self._context)
            generation = self.generation if config is self.config else 0
            listener.entrance = make_entrance(name, listener.config, config.limits, generation, self._context)
        return listeners

    def revive(self, former: Config, names: Collection[str]) -> dict[str, Listener]:
        """Listeners for what was queued before this worker was born, at addresses that have gone.

        Those that were removed, or speak something else now, get one more form, whose connections end with
        what they ask. It goes to the pools that have the names today; where there is none any more it is
        answered that nobody is there.

        Args:
            former: the configuration that had the addresses.
            names: of the listeners there.
        """
        gone = {
            name: Balancer(name, pool, self._context, self._context.follow_membership)
            for name, pool in former.pools.items()
            if name not in self.pools
        }
        for balancer in gone.values():
            balancer.stay_empty()
        listeners = self._make_listeners(former, names, gone | self.pools)
        for name, listener in listeners.items():
            present = self.listeners.get(name)
            if present is not None and present.continues(listener):
                listeners[name] = present
            else:
                listener.lineage.end()
        return listeners

    @classmethod
    def begin(cls, config: Config, context: WorkerContext, generation: int = 1) -> Runtime:
        """The first runtime of a worker, in use from now on."""
        runtime = cls(config, context, generation)
        context.runtime = runtime
        runtime.follow_membership()
        return runtime

    def succeed(self, previous: Runtime) -> bool:
        """Takes the place of the one in use, with its backends and their idle connections.

        Returns:
            False, and nothing has happened, when the membership of this generation is not published yet.
        """
        membership = self._read_membership()
        if membership is None:
            return False
        for name, balancer in self.pools.items():
            if name in previous.pools:
                balancer.inherit(previous.pools[name])
        for name, listener in self.listeners.items():
            before = previous.listeners.get(name)
            if before is not None and listener.continues(before):
                listener.succeed(before)
            else:
                listener.lineage.draining = self._context.draining
                listener.lineage.leaving = self._context.leaving
        self._context.runtime = self
        for listener in previous.listeners.values():
            listener.retire()
            if listener.lineage.current is listener:  # nobody continues it
                listener.lineage.end()
        previous.retire()
        self._keep_gone(previous)  # before it says what it follows
        self._take_over(membership)
        return True

    def _keep_gone(self, previous: Runtime) -> None:
        self._kept, previous._kept = previous._kept, []
        for name, balancer in previous.pools.items():
            if name not in self.pools and (entry := balancer.keep()) is not None:
                self._kept.append((ref(balancer), entry))

    def _release_kept(self) -> None:
        """Gives back what kept the places of balancers that nobody has any more."""
        ended = [entry for balancer, entry in self._kept if balancer() is None]
        self._kept = [(balancer, entry) for balancer, entry in self._kept if balancer() is not None]
        for entry in ended:
            self._context.view.release(entry)

    def follow_membership(self) -> None:
        """Takes over published membership if it changed since the last call."""
        if self._context.view.membership_epoch() != self._epoch:
            membership = self._read_membership()
            if membership is not None:
                self._take_over(membership)

    def _read_membership(self) -> dict[str, Any] | None:
        """The pools that are published for this generation; None when it is for another one."""
        self._epoch, blob = self._context.view.read_membership()
        if not blob:
            return {}
        published = msgpack.unpackb(blob)
        pools: dict[str, Any] = published["pools"]
        return pools if published["generation"] == self.generation else None

    def _take_over(self, membership: dict[str, Any]) -> None:
        for name, balancer in self.pools.items():
            if name in membership:
                balancer.follow(membership[name])
        self._context.view.follow_membership(self._epoch)

    def notice_out(self) -> frozenset[Row]:
        """Closes idle connections to backends that are out of use, when a status has changed.

        Returns:
            Backends that just became so and whose connections are to be cut.
        """
        epoch = self._context.view.status_epoch()
        if epoch == self._noticed:
            return _NOBODY
        self._noticed = epoch
        self.follow_membership()
        return _NOBODY.union(*[balancer.notice_out() for balancer in self.pools.values()])

    def look(self) -> None:
        """Does what is due in the pools without a request; from the worker's pulse."""
        for balancer in self.pools.values():
            balancer.look()
        if self._kept:
            self._release_kept()

    def close_aged(self, now: float) -> None:
        """Closes backend connections that have been idle too long."""
        for balancer in self.pools.values():
            for backend in balancer.backends:
                backend.close_aged(now)

    def retire(self) -> None:
        """Closes all idle backend connections that nobody has inherited: no request begins here any more."""
        for balancer in self.pools.values():
            balancer.retire()
