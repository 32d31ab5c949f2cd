"""How a run of the machine ends: until the proxy is done with every client, which it has to be in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from tests.proxy.machine.account import require
from tests.proxy.machine.setting import (
    ADDRESSES,
    BODY,
    CONNECT,
    HEADER,
    IDLE,
    LINGER,
    READ,
    RESPONSE,
    STEP,
    TUNNEL,
    WRITE,
)  # fmt: skip

if TYPE_CHECKING:
    from tests.proxy.machine.world import World

ONE_REQUEST = len(ADDRESSES) * CONNECT + BODY + RESPONSE + READ + WRITE
"""The longest that a request takes of which nothing moves any more."""


async def end(world: World) -> None:
    """Plays the ending of the script."""
    if world.script.ending == "stop":
        world.account.stopped = True
        world.nursery.cancel_scope.cancel()
        return
    patience = await _begin(world)
    began_at = trio.current_time()
    while any(client.is_served for client in world.clients):
        waited = trio.current_time() - began_at
        require(waited < patience + STEP, "a connection that never ends", world.script.ending)
        if world.script.ending == "cooperate":
            _part(world)
        await world.advance(STEP)
        if world.script.ending in {"cooperate", "idle"}:
            await _cooperate(world)


async def _begin(world: World) -> float:
    """Does what the ending begins with. Returns for how long connections may last from then on."""
    clients = world.clients
    match world.script.ending:
        case "cooperate" | "idle":
            world.client(len(world.script.clients) - 1)
            world.rig.refusing.clear()
            await _cooperate(world)
        case "leave":
            for client in clients:
                client.finish("close")
        case "reset":
            for client in clients:
                client.finish("reset")
            await world.settle()
            if all(client.ended == "reset" for client in clients):  # which no exchange waits out
                return len(ADDRESSES) * CONNECT if world.account.has_refused else 0.0
        case _:
            pass
    requests = sum(len(exchanges) for exchanges in world.script.clients)
    return HEADER + IDLE + TUNNEL + LINGER + (1 + requests) * ONE_REQUEST


async def _cooperate(world: World) -> None:
    """Everybody finishes what has begun."""
    for _ in range(2000):
        if await world.flow(50):
            return
    raise AssertionError("the peers never come to rest")


def _part(world: World) -> None:
    """Clients that have all their answers close."""
    for client in world.clients:
        view = client.view
        if client.is_served and len(view.finals) == len(view.requests) and view.current is None:
            client.finish("close")
