"""Commands take effect in the table at once; a wait is over when its end has come true, and no sooner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import pytest

from lbproc.config.model import Config
from lbproc.core.control.membership import Membership
from lbproc.core.control.messages import (
    AdminRequest,
    BackendAddRequest,
    BackendRemoveRequest,
    Progress,
    Reply,
    SteeringRequest,
    WeightRequest,
)
from lbproc.errors import CapacityError
from lbproc.shm.layout import Capacities
from lbproc.shm.table import Table
from lbproc.shm.views import BackendCounter, ControllerView, Role, SupervisorView, WorkerView
from lbproc.supervisor.publishing import Publishing
from lbproc.supervisor.steering import LOOK_EVERY, TELL_EVERY, Steering
from lbproc.telemetry.log import open_error_log
from lbproc.types import Admin, Health, Row, Slot, parse_address

A, B, C = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"

CONFIG = {
    "listeners": {"web": {"bind": "127.0.0.1:80", "pool": "web"}},
    "pools": {"web": {"backends": [A, {"address": B, "name": "b", "weight": 2}]}},
}


@dataclass
class Client:
    """Somebody at the control socket."""

    heard: list[Progress | Reply] = field(default_factory=list)
    is_there: bool = True

    def respond(self, message: Progress | Reply) -> bool:
        if self.is_there:
            self.heard.append(message)
        return self.is_there

    @property
    def reply(self) -> Reply | None:
        return next((message for message in self.heard if isinstance(message, Reply)), None)

    @property
    def progress(self) -> list[object]:
        return [message.body for message in self.heard if isinstance(message, Progress)]


class Scene:
    """A table, what the supervisor does with it, and two workers that follow when the test says so."""

    def __init__(
        self, log_path: Path, pool: dict[str, Any] | None = None, rows: int = 4, room: int = 1024
    ) -> None:
        table = {**CONFIG, "pools": {"web": {**CONFIG["pools"]["web"], **(pool or {})}}}  # type: ignore[index]
        self.config = Config.model_validate(table)
        self.table = Table.create(
            Capacities(columns=8, backends=rows, pools=4, keys=8, ledger=8, membership_bytes=room)
        )
        self.view = SupervisorView(self.table)
        self.log_path = log_path
        self.log = open_error_log(log_path, "info", "supervisor")
        membership = Membership(self.config, self.view.ensure_row, self.view.ensure_pool)
        self.publishing = Publishing(self.view, membership, self.log)
        self.now = 100.0
        self.steering = Steering(self.view, self.log, lambda: self.now, self.publishing)
        self.publishing.publish()
        self.workers = [
            WorkerView(self.table, self.view.allocate_column(Slot(number), Role.WORKER))
            for number in range(2)
        ]
        self.controller = ControllerView(self.table, self.view.allocate_column(None, Role.CONTROLLER))
        self.follow()

    def close(self) -> None:
        self.table.close()
        self.log.close()

    def follow(self, *numbers: int) -> None:
        """These workers, or all processes, take over what is published."""
        for number in numbers or range(len(self.workers)):
            self.workers[number].follow_membership(self.workers[number].membership_epoch())
        if not numbers:
            self.controller.follow_membership(self.controller.membership_epoch())

    def ask(self, request: SteeringRequest) -> Client:
        client = Client()
        self.steering.answer(request, client.respond)
        if self.steering.next_wakeup() <= self.now:
            self.steering.look()
        return client

    def do(self, request: SteeringRequest) -> dict[str, Any]:
        reply = self.ask(request).reply
        assert reply is not None
        assert reply.ok, reply.body
        assert isinstance(reply.body, dict)
        return reply.body

    def refusal(self, request: SteeringRequest) -> str:
        reply = self.ask(request).reply
        assert reply is not None
        assert not reply.ok
        return str(reply.body)

    def pass_time(self, seconds: float = LOOK_EVERY) -> None:
        self.now += seconds
        self.steering.look()

    def row(self, address: str) -> Row:
        return self.publishing.membership.rows()["web", address]

    def published(self) -> dict[str, int]:
        """Weights by address, as workers read them."""
        _, blob = self.workers[0].read_membership()
        return {backend[1]: backend[2] for backend in msgpack.unpackb(blob)["pools"]["web"]["backends"]}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path / "error.log")
    yield scene
    scene.close()


def drain(wait: bool = False, timeout: float = 0.0, backend: str = "b", state: str = "drain") -> AdminRequest:
    return AdminRequest("web", backend, state, wait, timeout)


def test_a_state_is_in_the_table_at_once(scene: Scene) -> None:
    epoch = scene.workers[0].status_epoch()
    body = scene.do(drain())
    assert body == {
        "pool": "web",
        "backend": "b",
        "address": B,
        "admin": "drain",
        "was": "ready",
        "in_flight": 0,
        "warnings": [],
    }
    assert scene.workers[0].status_epoch() > epoch
    assert scene.workers[0].statuses([scene.row(B)]) == [(Health.UP, Admin.DRAIN, False)]
    assert scene.do(drain(state="ready"))["was"] == "drain"
    assert scene.workers[0].statuses([scene.row(B)]) == [(Health.UP, Admin.READY, False)]
    log = scene.log_path.read_text()
    assert "backend_state pool=web backend=b state=drain was=ready" in log
    assert log.count("backend_state") == 2
    scene.do(drain(state="ready"))
    assert scene.log_path.read_text().count("backend_state") == 2, "nothing has changed"


def test_the_last_one_that_is_ready_may_be_drained_with_a_warning(scene: Scene) -> None:
    scene.do(drain())
    body = scene.do(drain(backend=A, state="maintenance"))
    assert body["warnings"] == ['no backend of pool "web" is ready now: its requests get 503']


def test_weights_are_published(scene: Scene) -> None:
    assert scene.do(WeightRequest("web", "b", 7)) | {"warnings": None} == {
        "pool": "web",
        "backend": "b",
        "address": B,
        "weight": 7,
        "was": 2,
        "in_flight": 0,
        "warnings": None,
    }
    assert scene.published() == {A: 1, B: 7}
    assert scene.do(WeightRequest("web", B, None))["weight"] == 2
    assert scene.published() == {A: 1, B: 2}


def test_backends_come_and_go(scene: Scene) -> None:
    body = scene.do(BackendAddRequest("web", {"address": C, "name": "c", "weight": 5}))
    assert (body["backend"], body["address"], body["weight"]) == ("c", C, 5)
    assert scene.published() == {A: 1, B: 2, C: 5}
    scene.do(BackendRemoveRequest("web", "c", wait=False, timeout=0.0))
    scene.do(BackendRemoveRequest("web", A, wait=False, timeout=0.0))
    assert scene.published() == {B: 2}
    log = scene.log_path.read_text()
    assert f"backend_added pool=web backend=c address={C} weight=5" in log
    assert f"backend_removed pool=web backend={A} address={A}" in log


def test_refusals_say_why(scene: Scene) -> None:
    assert 'no pool named "wbe"' in scene.refusal(AdminRequest("wbe", "b", "drain", wait=True, timeout=1.0))
    assert 'no backend named "c"' in scene.refusal(WeightRequest("web", "c", 1))
    assert "weight: " in scene.refusal(WeightRequest("web", "b", 5000))
    assert 'no state named "off"' in scene.refusal(drain(state="off"))
    assert "already" in scene.refusal(BackendAddRequest("web", {"address": A}))
    scene.do(BackendRemoveRequest("web", "b", wait=False, timeout=0.0))
    assert "only backend" in scene.refusal(BackendRemoveRequest("web", A, wait=True, timeout=0.0))


def test_without_room_nothing_changes(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "error.log", rows=2)
    before = scene.published()
    assert "room for 2 backends" in scene.refusal(BackendAddRequest("web", {"address": C}))
    assert scene.publishing.membership.overrides.of("web").added == {}
    assert scene.published() == before
    scene.close()


def test_a_blob_without_room_changes_nothing_and_its_row_is_free_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "error.log", rows=3, room=256)
    before = scene.published()
    for number in range(5):
        address = f"10.0.1.{number}:80"
        request = BackendAddRequest("web", {"address": address, "name": "x" * 200})
        assert "bytes of the shared table, which has room for 256" in scene.refusal(request)
        assert scene.published() == before
        scene.publishing.free_places()
    scene.do(BackendAddRequest("web", {"address": C}))
    scene.close()


# Waiting


def test_a_drain_is_over_when_the_last_request_has_ended(scene: Scene) -> None:
    entry = scene.workers[0].take(scene.row(B))
    client = scene.ask(drain(wait=True))
    scene.follow()
    assert client.reply is None
    assert client.progress == [{"in_flight": 1, "late_workers": 2, "health": None}]
    assert scene.steering.next_wakeup() == scene.now + LOOK_EVERY
    scene.pass_time()
    assert client.progress[1:] == [{"in_flight": 1, "late_workers": 0, "health": None}]
    scene.pass_time()
    assert len(client.heard) == 2, "nothing is new"
    scene.pass_time(TELL_EVERY)
    assert len(client.heard) == 3, "but that it waits is said now and then"
    scene.workers[0].release(entry)
    scene.pass_time()
    assert client.reply is not None
    assert client.reply.ok
    assert isinstance(client.reply.body, dict)
    assert client.reply.body["in_flight"] == 0
    assert client.reply.body["waited_seconds"] == pytest.approx(
        2 * LOOK_EVERY + TELL_EVERY + LOOK_EVERY, abs=0.01
    )
    scene.pass_time()
    assert scene.steering.next_wakeup() == float("inf")


def test_a_drain_is_not_over_while_a_worker_may_still_take_a_place(scene: Scene) -> None:
    """A worker that chose the backend before the command takes its place after it, with nothing in flight."""
    client = scene.ask(drain(wait=True))
    scene.follow(1)
    scene.pass_time()
    assert client.reply is None
    entry = scene.workers[0].take(scene.row(B))
    scene.follow(0)
    scene.pass_time()
    assert client.reply is None
    scene.workers[0].release(entry)
    scene.pass_time()
    assert client.reply is not None


def test_a_worker_that_has_not_said_anything_yet_and_one_that_is_dead_are_not_waited_for(
    scene: Scene,
) -> None:
    scene.view.allocate_column(Slot(2), Role.WORKER)
    client = scene.ask(drain(wait=True))
    scene.follow(0)
    scene.workers[1].take(scene.row(B))
    scene.view.repair(scene.workers[1].column)
    scene.pass_time()
    assert client.reply is not None
    assert client.reply.ok


def test_a_wait_that_takes_too_long_fails_and_the_drain_goes_on(scene: Scene) -> None:
    scene.workers[0].take(scene.row(B))
    client = scene.ask(drain(wait=True, timeout=5.0))
    scene.follow()
    scene.pass_time(4.9)
    assert client.reply is None
    scene.pass_time(0.2)
    assert client.reply == Reply(
        ok=False, body='"web/b" still has 1 request in flight after 5.1 s; it gets no new ones'
    )
    assert scene.workers[0].statuses([scene.row(B)])[0][1] is Admin.DRAIN


def test_a_wait_for_a_worker_that_is_stuck_fails_in_time(scene: Scene) -> None:
    client = scene.ask(drain(wait=True, timeout=5.0))
    scene.follow(0)
    scene.pass_time(5)
    assert client.reply == Reply(ok=False, body='1 worker did not take notice of "web/b" in 5 s')


def test_a_client_that_asks_again_as_soon_as_it_is_answered_waits_for_that(scene: Scene) -> None:
    client, next_one = Client(), Client()

    def respond(message: Progress | Reply) -> bool:
        client.respond(message)
        if isinstance(message, Reply):
            scene.steering.answer(drain(wait=True, backend=A), next_one.respond)
        return True

    entry = scene.workers[0].take(scene.row(A))
    scene.steering.answer(drain(wait=True), respond)
    scene.follow()
    scene.pass_time()
    assert client.reply is not None
    assert next_one.reply is None
    assert scene.steering.next_wakeup() <= scene.now
    scene.follow()
    scene.workers[0].release(entry)
    scene.pass_time()
    assert next_one.reply is not None
    assert len([message for message in client.heard if isinstance(message, Reply)]) == 1


def test_who_leaves_is_waited_for_no_longer(scene: Scene) -> None:
    scene.workers[0].take(scene.row(B))
    client = scene.ask(drain(wait=True))
    scene.follow()
    scene.pass_time()
    client.is_there = False
    scene.pass_time(TELL_EVERY)
    scene.pass_time()
    assert scene.steering.next_wakeup() == float("inf")


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (drain(state="ready"), "web/b was put into ready meanwhile; waiting no longer"),
        (drain(state="maintenance"), ""),
        (BackendRemoveRequest("web", "b", wait=False, timeout=0.0), ""),
    ],
)
def test_a_later_command_may_end_a_wait(scene: Scene, request_: SteeringRequest, says: str) -> None:
    row = scene.row(B)
    entry = scene.workers[0].take(row)
    client = scene.ask(drain(wait=True))
    scene.do(request_)
    scene.follow()
    scene.pass_time()
    if says:
        assert client.reply == Reply(ok=False, body=says)
    else:
        assert client.reply is None
        scene.workers[0].release(entry)
        scene.pass_time()
        assert client.reply is not None
        assert client.reply.ok


def test_ready_waits_until_it_takes_requests(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "error.log", pool={"health": {}})
    scene.do(drain())
    client = scene.ask(drain(wait=True, state="ready"))
    late = scene.ask(drain(wait=True, state="ready", timeout=1.0))
    scene.follow()
    scene.pass_time()
    assert client.progress[-1] == {"in_flight": 0, "late_workers": 0, "health": "checking"}
    scene.pass_time(1)
    assert late.reply is not None
    assert '"web/b" is still checking after 1.1 s' in str(late.reply.body)
    scene.controller.set_health(scene.row(B), Health.UP)
    ejections, row = scene.workers[0].ejections, scene.row(B)
    ejections.confirm(row, ejections.claim(row, 1001), 1, 2002)
    scene.pass_time()
    assert client.progress[-1] == {"in_flight": 0, "late_workers": 0, "health": "ejected"}
    ejections.give_back(row, 2002, 2002)
    scene.workers[0].take(row)
    scene.pass_time()
    assert client.reply is not None
    assert client.reply.ok
    gone = scene.ask(drain(wait=True, state="ready", backend=A))
    scene.do(BackendRemoveRequest("web", A, wait=False, timeout=0.0))
    scene.pass_time()
    assert gone.reply == Reply(ok=False, body=f"web/{A} is no backend any more; waiting no longer")
    scene.close()


def test_a_removal_is_over_when_nothing_is_in_flight_and_fails_when_it_is_taken_back(scene: Scene) -> None:
    entry = scene.workers[0].take(scene.row(B))
    remove = BackendRemoveRequest("web", "b", wait=True, timeout=0.0)
    client = scene.ask(remove)
    scene.follow()
    scene.pass_time()
    assert client.reply is None
    scene.do(BackendAddRequest("web", {"address": B}))
    scene.pass_time()
    assert client.reply == Reply(ok=False, body="web/b is a backend again; waiting no longer")
    client = scene.ask(remove)
    scene.follow()
    scene.workers[0].release(entry)
    scene.pass_time()
    assert client.reply is not None
    assert client.reply.ok


# Rows


def test_a_row_is_anothers_only_when_nobody_can_touch_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "error.log", rows=2)
    old, worker = scene.row(B), scene.workers[0]
    entry = worker.take(old)
    worker.count_backend(old, BackendCounter.REQUESTS)
    scene.controller.set_health(old, Health.DOWN)
    scene.do(drain())
    scene.do(BackendRemoveRequest("web", "b", wait=False, timeout=0.0))
    add = BackendAddRequest("web", {"address": C})

    def has_room() -> bool:
        scene.publishing.free_places()
        reply = scene.ask(add).reply
        assert reply is not None
        return reply.ok

    assert not has_room()
    scene.follow(0, 1)
    assert not has_room(), "the controller may still write what it finds of it"
    scene.follow()
    assert not has_room(), "one request is in flight"
    worker.release(entry)
    assert has_room()
    assert scene.row(C) == old
    reader = scene.view.reader
    assert reader.backend_total(old, BackendCounter.REQUESTS) == 0
    status = reader.status(old)
    assert (status.health, status.admin) == (Health.UP, Admin.READY)
    assert reader.started_at(old)
    scene.close()


def test_one_that_comes_back_before_has_its_row_and_starts_anew(scene: Scene) -> None:
    row = scene.row(B)
    entry = scene.workers[0].take(row)
    scene.do(drain(state="maintenance"))
    scene.view.start_row(row, 5)
    scene.do(BackendRemoveRequest("web", "b", wait=False, timeout=0.0))
    scene.follow()
    scene.publishing.free_places()
    scene.do(BackendAddRequest("web", {"address": B}))
    assert scene.row(B) == row
    assert scene.workers[0].statuses([row]) == [(Health.UP, Admin.READY, False)]
    assert scene.view.reader.started_at(row) > 5
    assert scene.view.reader.in_flight(row) == 1
    scene.workers[0].release(entry)


def changed(config: Config, **pools: tuple[str, ...]) -> Config:
    """The configuration with other pools, by the addresses of their backends."""
    web = config.pools["web"]
    made = {
        name: web.model_copy(update={"backends": tuple(
            web.backends[0].model_copy(update={"address": parse_address(address), "name": address})
            for address in addresses
        )})
        for name, addresses in pools.items()
    }  # fmt: skip
    return config.model_copy(update={"pools": made})


def commit(scene: Scene, config: Config, generation: int) -> None:
    scene.publishing.membership = scene.publishing.prepare(config, generation)
    scene.publishing.publish()


def test_a_row_that_somebody_waits_for_is_nobody_elses_before_he_knows(scene: Scene) -> None:
    row = scene.row(B)
    entry = scene.workers[0].take(row)
    client = scene.ask(BackendRemoveRequest("web", "b", wait=True, timeout=0.0))
    scene.follow()
    scene.pass_time()
    scene.workers[0].release(entry)
    scene.publishing.free_places(scene.steering.awaited())
    scene.do(BackendAddRequest("web", {"address": C}))
    assert scene.row(C) != row
    entry = scene.workers[0].take(scene.row(C))
    scene.follow()
    scene.pass_time()
    assert client.reply is not None
    scene.workers[0].release(entry)
    scene.publishing.free_places(scene.steering.awaited())
    scene.do(BackendAddRequest("web", {"address": "10.0.0.4:80"}))
    assert scene.row("10.0.0.4:80") == row


def test_a_backend_that_left_and_is_prepared_again_keeps_its_row_until_that_is_decided(
    scene: Scene,
) -> None:
    row, config = scene.row(B), scene.config
    commit(scene, changed(config, web=(A,)), 2)
    prepared = scene.publishing.prepare(config, 3)
    scene.follow()
    scene.publishing.free_places()
    scene.do(BackendAddRequest("web", {"address": C}))
    assert scene.row(C) != row
    assert prepared.rows()["web", B] == row
    scene.publishing.discard(prepared)
    scene.publishing.free_places()
    assert scene.view.reader.find_rows([("web", B)]), "the controller may still check it"
    scene.follow()
    scene.publishing.free_places()
    assert not scene.view.reader.find_rows([("web", B)])


def test_a_backend_that_was_taken_out_is_checked_in_a_reload_by_its_own_row(scene: Scene) -> None:
    """The controller looks for the backends of the file, and knows nothing of what operators took out."""
    scene.do(BackendRemoveRequest("web", "b", wait=False, timeout=0.0))
    scene.follow()
    prepared = scene.publishing.prepare(scene.config, 2)
    assert ("web", B) not in prepared.rows()
    scene.publishing.free_places()
    assert scene.view.reader.find_rows([("web", B)])
    scene.publishing.membership = prepared
    scene.publishing.publish()
    scene.publishing.free_places()
    assert scene.view.reader.find_rows([("web", B)])
    scene.follow()
    scene.publishing.free_places()
    assert not scene.view.reader.find_rows([("web", B)])


def test_a_preparation_that_came_to_nothing_is_said_to_be_over(scene: Scene) -> None:
    same = scene.publishing.prepare(scene.config, 2)
    scene.publishing.discard(same)
    assert scene.controller.abandoned() == 0, "there was nothing to try"
    epoch = scene.controller.membership_epoch()
    other = scene.publishing.prepare(changed(scene.config, web=(A, C)), 3)
    scene.publishing.discard(other)
    scene.publishing.discard(other)
    assert scene.controller.abandoned() == 3
    assert scene.controller.membership_epoch() != epoch


# Pools


def test_words_of_a_pool_are_anothers_when_all_follow_and_nobody_keeps_them(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "error.log", rows=8)
    view, config = scene.view, scene.config
    row, web = scene.row(B), view.ensure_pool("web")
    commit(scene, changed(config, api=(C,), x=(C,), y=(C,)), 2)
    more = changed(config, api=(C,), new=(A,))

    def has_room() -> bool:
        scene.publishing.free_places()
        try:
            scene.publishing.discard(scene.publishing.prepare(more, 3))
        except CapacityError:
            return False
        return True

    assert not has_room()
    scene.follow(0)
    assert not has_room()
    entry = scene.workers[0].keep_pool(web)
    scene.follow()
    assert not has_room()
    assert view.reader.find_rows([("web", B)]) == {("web", B): row}, "its rows are kept with it"
    scene.workers[0].release(entry)
    assert has_room()
    assert view.ensure_pool("new") == web
    assert not view.reader.find_rows([("web", B)])
    scene.table.close()
    scene.log.close()


def test_a_pool_that_comes_back_before_has_its_words_and_rows(scene: Scene) -> None:
    row, web = scene.row(B), scene.view.ensure_pool("web")
    scene.workers[0].ticket(web)
    commit(scene, changed(scene.config, api=(C,)), 2)
    entry = scene.workers[0].keep_pool(web)
    scene.follow()
    scene.publishing.free_places()
    commit(scene, scene.config, 3)
    scene.follow()
    scene.workers[0].release(entry)
    scene.publishing.free_places()
    assert scene.view.ensure_pool("web") == web
    assert scene.row(B) == row
    assert scene.workers[0].ticket(web) == 1


def test_more_pools_come_and_go_than_there_is_room_for(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "error.log", rows=8)
    for generation in range(2, 12):
        commit(scene, changed(scene.config, **{f"pool{generation}": (A, B)}), generation)
        scene.follow()
        discarded = scene.publishing.prepare(changed(scene.config, never=(A,)), 90 + generation)
        scene.publishing.discard(discarded)
        scene.follow()
        scene.publishing.free_places()
    assert set(scene.publishing.membership.tickets()) == {"pool11"}
    scene.table.close()
    scene.log.close()


def test_addresses_of_names_that_do_not_fit_are_not_taken_over(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "error.log", {"backends": ["name.test:80"]}, room=256)
    few = ["10.1.0.1:80", "10.1.0.2:80"]
    scene.publishing.resolve({"name.test:80": few})
    scene.publishing.resolve({"name.test:80": [f"10.1.0.{number}:80" for number in range(60)]})
    _, blob = scene.workers[0].read_membership()
    assert msgpack.unpackb(blob)["pools"]["web"]["backends"][0][6] == few
    assert scene.publishing.membership.encode() == blob
    scene.log.close()
    assert "capacity_reached" in scene.log_path.read_text()
    scene.table.close()


def test_what_was_prepared_and_discarded_gives_its_rows_back(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "error.log", rows=3)
    wished = scene.config.model_copy(
        update={"pools": {"web": scene.config.pools["web"].model_copy(update={"backends": (
            scene.config.pools["web"].backends[0],
            scene.config.pools["web"].backends[0].model_copy(update={"address": C, "name": "c"}),
        )})}}
    )  # fmt: skip
    for generation in range(2, 6):
        prepared = scene.publishing.prepare(wished, generation)
        scene.publishing.check(prepared)
        scene.publishing.discard(prepared)
        scene.publishing.free_places()
    assert "room for 3" in scene.refusal(BackendAddRequest("web", {"address": "10.0.0.9:80"}))
    scene.follow()
    scene.publishing.free_places()
    scene.do(BackendAddRequest("web", {"address": "10.0.0.9:80"}))
    scene.close()


def test_a_reload_for_which_the_table_has_no_room_takes_nothing_of_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "error.log", rows=4)
    web = scene.config.pools["web"]
    more = tuple(
        web.backends[0].model_copy(update={"address": f"10.0.1.{number}:80", "name": str(number)})
        for number in range(3)
    )
    bigger = web.model_copy(update={"backends": web.backends + more})
    many_pools = {"web": web} | dict.fromkeys("abcd", web.model_copy(update={"backends": ()}))
    for pools, says in (({"web": bigger}, "4 backends"), (many_pools, "4 pools")):
        with pytest.raises(CapacityError, match=says):
            scene.publishing.prepare(scene.config.model_copy(update={"pools": pools}), 2)
    for address in (C, "10.0.0.4:80"):  # the two that are left
        scene.do(BackendAddRequest("web", {"address": address}))
    assert scene.view.ensure_pool("another") == 1
    # of a full table, everything that has a place can be prepared again
    again = scene.publishing.prepare(scene.config, 2)
    assert again.rows() == scene.publishing.membership.rows()
    scene.close()
