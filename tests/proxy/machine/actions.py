"""What can happen in the machine's world: what its peers do, and its operator, and time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbproc.net.readiness import READ, WRITE
from tests.proxy.machine.setting import ADDRESSES, pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.proxy.machine.script import Action
    from tests.proxy.machine.world import World


async def act(world: World, action: Action) -> None:
    """Does one thing, and lets the proxy notice."""
    world.digest()
    await ACTIONS[action.kind](world, action.who, action.amount)
    if not action.at_once:
        await world.settle()


# Peers ------------------------------------------------------------------------------------------------------


async def send(world: World, who: int, amount: int) -> None:
    world.client(who).send(amount)


async def read(world: World, who: int, amount: int) -> None:
    world.client(who).take(amount)


async def client_end(world: World, who: int, amount: int) -> None:
    world.client(who).finish(("half", "close", "reset", "reset")[amount % 4])


async def take(world: World, who: int, amount: int) -> None:
    if (conn := world.conn(who)) is not None:
        conn.take(amount)
        conn.think()


async def answer(world: World, who: int, amount: int) -> None:
    if (conn := world.conn(who)) is not None:
        conn.send(amount)


async def backend_end(world: World, who: int, amount: int) -> None:
    if (conn := world.conn(who)) is not None:
        conn.finish(("half", "close", "reset")[amount % 3])


async def blurt(world: World, who: int, _amount: int) -> None:
    """A backend says something on a connection where nobody asked."""
    if (conn := world.conn(who)) is not None:
        conn.blurt()


# Everybody at once ------------------------------------------------------------------------------------------


async def flow(world: World, who: int, amount: int) -> None:
    world.client(who)
    await world.flow(1 + amount % 3)


async def midway(world: World, who: int, amount: int) -> None:
    """Brings everybody into the middle of something: answers stop short of their last bytes."""
    world.client(who)
    for client in world.clients:
        client.send_on(1 << 20, polite=world.script.polite)
        client.take(1 << 20)
    await world.settle()
    for conn in world.rig.conns:
        conn.take(1 << 20)
        conn.think()
        conn.send(len(conn.unsent) - (1, 2, 7, 25, 40)[amount % 5])
    await world.settle()


async def strand(world: World, who: int, amount: int) -> None:
    """A backend ends idle connections at the moment when the next request comes on one of them."""
    idle = [conn for conn in world.rig.conns if conn.view.is_between and not conn.ended]
    client = world.client(who)
    view = client.view
    index = len(view.finals)
    if not idle or view.is_answering or index == len(view.requests):
        return
    client.send(max(0, view.body_starts[index] - view.client_sent))
    await world.settle()
    if amount % 3:
        client.send(amount % 7)
        await world.settle()
    for conn in idle:
        conn.finish("reset" if amount % 2 else "close")


async def stir(world: World, who: int, amount: int) -> None:
    """An event of which nothing comes."""
    if taps := world.taps():
        taps[who % len(taps)].source.notify((READ, WRITE, READ | WRITE)[amount % 3])


# Surroundings -----------------------------------------------------------------------------------------------


async def advance(world: World, _who: int, amount: int) -> None:
    await world.advance(amount % 30 * 0.25)


async def refuse(world: World, who: int, amount: int) -> None:
    """A backend cannot be reached, or is slow to be."""
    world.account.has_refused = True
    kinds = ("refused", "timeout", "unreachable", "local", "slow")
    world.rig.refusing[ADDRESSES[who % len(ADDRESSES)]] = kinds[amount % len(kinds)]


async def accept(world: World, _who: int, _amount: int) -> None:
    world.rig.refusing.clear()


async def publish(world: World, who: int, amount: int) -> None:
    """Backends come and go; the worker notices at once, or at its next request."""
    first = who % 2
    world.rig.publish(pool=pool(ADDRESSES[first : first + 1 + amount % 2], world.script.cap))
    if amount % 4 < 2:
        world.rig.runtime.follow_membership()


async def age(world: World, _who: int, _amount: int) -> None:
    world.rig.runtime.close_aged(world.account.now)


async def drain(world: World, _who: int, _amount: int) -> None:
    """The worker is to finish what it has."""
    if not world.account.draining:
        world.rig.context.draining = world.account.draining = True
        for conn in world.rig.conns:
            conn.view.backend_sent_before_drain = conn.view.backend_sent


async def leave(world: World, who: int, amount: int) -> None:
    """And idle connections are to end."""
    await drain(world, who, amount)
    world.rig.context.leaving = world.account.leaving = True
    for connection in world.connections:
        connection.nudge_idle()


ACTIONS: dict[str, Callable[[World, int, int], Awaitable[None]]] = {
    action.__name__: action
    for action in (
        send, read, client_end, take, answer, backend_end, blurt, flow, midway, strand, stir, advance, refuse,
        accept, publish, age, drain, leave,
    )
}  # fmt: skip
