"""The places of listeners: there before a reload asks for them, and given back when nobody uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lbproc.config.model import Config
from lbproc.core.control.membership import Membership
from lbproc.errors import CapacityError
from lbproc.shm.layout import Capacities
from lbproc.shm.table import Table
from lbproc.shm.views import Role, SupervisorView, WorkerView
from lbproc.supervisor.publishing import Publishing
from lbproc.telemetry.events import Level
from lbproc.telemetry.log import ErrorLog
from lbproc.telemetry.sink import Sink
from lbproc.types import Slot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def config_of(*listeners: str) -> Config:
    tables: dict[str, Any] = {
        name: {"bind": f"127.0.0.1:{8000 + number}", "pool": "web"} for number, name in enumerate(listeners)
    }
    return Config.model_validate({"listeners": tables, "pools": {"web": {"backends": ["127.0.0.1:9001"]}}})


class Scene:
    """A supervisor's part that publishes, and one worker that follows."""

    def __init__(self, path: Path) -> None:
        self.table = Table.create(
            Capacities(
                columns=5, backends=4, pools=2, keys=4, ledger=8, membership_bytes=4096, listeners=2, flows=2
            )
        )
        self.view = SupervisorView(self.table)
        self.log = ErrorLog(Sink(path / "error.log"), Level.DEBUG, "supervisor")
        config = config_of("one")
        self.view.ensure_listener("one")
        membership = Membership(config, self.view.ensure_row, self.view.ensure_pool)
        self.publishing = Publishing(self.view, membership, self.log)
        self.worker = WorkerView(self.table, self.view.allocate_column(Slot(0), Role.WORKER))
        self.worker.follow_membership(self.publishing.publish())

    def reload(self, *listeners: str, generation: int) -> None:
        self.publishing.membership = self.publishing.prepare(config_of(*listeners), generation)
        self.worker.follow_membership(self.publishing.publish())

    def has(self, listener: str) -> bool:
        return listener in self.view.reader.listeners([listener])


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.log.close()
    made.table.close()


def test_a_listener_has_its_words_before_anybody_is_asked_to_prepare(scene: Scene) -> None:
    scene.publishing.prepare(config_of("one", "two"), 2)
    assert scene.has("two")
    scene.publishing.free_places()
    assert scene.has("two"), "it is wanted"


def test_a_reload_that_is_refused_leaves_no_words_behind(scene: Scene) -> None:
    prepared = scene.publishing.prepare(config_of("one", "two"), 2)
    scene.publishing.discard(prepared)
    scene.publishing.free_places()
    assert scene.has("two"), "a worker may still look for it"
    scene.worker.follow_membership(scene.worker.membership_epoch())
    scene.publishing.free_places()
    assert not scene.has("two")
    assert scene.has("one")


def test_the_words_of_a_listener_that_is_gone_wait_for_its_last_connection(scene: Scene) -> None:
    entry = scene.worker.listener("one").take()
    scene.reload("two", generation=2)
    scene.publishing.free_places()
    assert scene.has("one")
    scene.worker.release(entry)
    scene.publishing.free_places()
    assert not scene.has("one")
    scene.reload("two", "three", generation=3)
    assert scene.has("three")


def test_a_listener_that_is_back_goes_on_with_what_is_open(scene: Scene) -> None:
    scene.worker.listener("one").take()
    scene.reload("two", generation=2)
    scene.publishing.free_places()
    scene.reload("one", generation=3)
    scene.publishing.free_places()
    assert scene.worker.listener("one").open() == 1
    assert not scene.has("two")


def test_too_many_listeners_are_refused_before_anything_is_taken(scene: Scene) -> None:
    with pytest.raises(CapacityError, match="room for 2 listeners"):
        scene.publishing.prepare(config_of("one", "two", "three"), 2)
    assert not scene.has("two")
