from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lbproc.config.load import load_config
from lbproc.net.tls.openssl import is_layout_known
from lbproc.net.tls.tickets import SharedTickets
from lbproc.supervisor.tickets import TICKETS_FAILED, adapt_and_prove, prove_tickets, tell_of_tickets
from lbproc.telemetry.log import open_error_log
from tests.certificates import Authority

if TYPE_CHECKING:
    from lbproc.config.model import Config

POOL = """
[pools.web]
backends = ["127.0.0.1:1"]
[listeners.web]
bind = "127.0.0.1:1"
pool = "web"
"""


def load(directory: Path, *, tls: str = "") -> Config:
    path = directory / "lbproc.toml"
    pair = Authority().issue("www.example.com").toml(directory, "www")
    table = f"[listeners.web.tls]\ncertificates = [{pair}]\n{tls}" if tls else ""
    path.write_text(POOL + table)
    return load_config(path, {})


def told(directory: Path, tickets: SharedTickets | None, *configs: Config) -> str:
    path = directory / "error.log"
    log = open_error_log(path, "info", "supervisor", None)
    for config in configs:
        tell_of_tickets(tickets, config, log)
    log.close()
    return path.read_text()


def fails(_chain: bytes, _key: bytes) -> bool:
    return False


@pytest.mark.skipif(not is_layout_known(), reason="this build of Python is one where keys are not shared")
def test_sharing_is_tried_when_the_first_configuration_wants_it(tmp_path: Path) -> None:
    tickets = SharedTickets(0.0)
    plain, secure = load(tmp_path), load(tmp_path, tls="tickets = true")
    assert adapt_and_prove(lambda config: config, tickets, plain) is plain
    assert not tickets.is_proven
    prove_tickets(tickets, load(tmp_path, tls="tickets = false"))
    assert not tickets.is_proven
    assert adapt_and_prove(lambda _config: secure, tickets, plain) is secure
    assert tickets.works
    assert told(tmp_path, tickets, plain, secure) == ""


def test_that_keys_cannot_be_shared_is_told_once(tmp_path: Path) -> None:
    tickets = SharedTickets(0.0)
    tickets.prove(b"", b"", fails)
    plain, secure = load(tmp_path), load(tmp_path, tls="tickets = true")
    said = told(tmp_path, tickets, plain, secure, secure)
    assert said.count("tickets_not_shared") == 1
    assert TICKETS_FAILED in said


def test_without_anything_to_share_nothing_is_tried_or_told(tmp_path: Path) -> None:
    secure = load(tmp_path, tls="tickets = true")
    prove_tickets(None, secure)
    assert told(tmp_path, None, secure) == ""
