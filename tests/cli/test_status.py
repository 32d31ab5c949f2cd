from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lbproc.cli import main
from lbproc.cli.status import render_span, render_status
from lbproc.core.control.codec import encode
from lbproc.core.control.messages import Reply, StatusRequest
from tests.cli.answering import answering

WORKER = {
    "slot": 0,
    "pid": 4242,
    "state": "ready",
    "generation": 1,
    "connections": 17,
    "requests": 90210,
    "restarts": 0,
}
BACKEND = {
    "name": "a",
    "address": "127.0.0.1:9001",
    "weight": 1,
    "health": "up",
    "admin": "ready",
    "ejected": False,
    "in_flight": 3,
    "requests": 30070,
    "failures": 0,
}


def status(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "version": "0.1.0",
        "pid": 4200,
        "config": "/etc/lbproc/lbproc.toml",
        "generation": 1,
        "uptime_seconds": 12.5,
        "workers": [WORKER, WORKER | {"slot": 1, "pid": None, "state": "down"}],
        "pools": {
            "web": {"policy": "least_connections", "backends": [BACKEND, BACKEND | {"name": "long-name"}]}
        },
    }
    return body | changes


def test_text_has_one_line_for_each_worker_and_backend() -> None:
    assert render_status(status()).splitlines() == [
        "lbproc 0.1.0, pid 4200, up 12 s, generation 1, /etc/lbproc/lbproc.toml",
        "",
        "WORKER   PID  STATE  CONNECTIONS  REQUESTS  RESTARTS",
        "     0  4242  ready           17     90210         0",
        "     1     -  down            17     90210         0",
        "",
        "pool web, least_connections",
        "BACKEND    ADDRESS         WEIGHT  HEALTH  ADMIN  IN FLIGHT  REQUESTS  FAILURES",
        "a          127.0.0.1:9001       1  up      ready          3     30070         0",
        "long-name  127.0.0.1:9001       1  up      ready          3     30070         0",
    ]


def test_certificates_have_a_table_with_the_first_to_expire_on_top() -> None:
    one = {"listener": "web", "pool": None, "names": ["a.com"], "key_kind": "RSA", "not_after": 0.0}
    certificates = [
        one | {"not_after": 86400.0 * 90, "days_left": 90, "names": ["a.com", "b.com", "c.com", "d.com"]},
        one
        | {"not_after": 86400.0 * 10, "days_left": 10, "key_kind": "ECDSA", "listener": None, "pool": "db"},
        one | {"days_left": -1},
    ]
    lines = render_status(status(certificates=certificates)).splitlines()
    assert lines[lines.index("") :][-4:] == [
        "CERTIFICATE                     KEY    OF            EXPIRES     DAYS LEFT",
        "a.com                           RSA    listener web  1970-01-01  EXPIRED",
        "a.com                           ECDSA  pool db       1970-01-11  10 !",
        "a.com, b.com, c.com and 1 more  RSA    listener web  1970-04-01  90",
    ]


def test_text_without_workers_and_pools_is_still_a_text() -> None:
    body = status(workers=[], pools={})
    del body["pid"], body["config"]
    assert render_status(body).splitlines() == [
        "lbproc 0.1.0, up 12 s, generation 1",
        "",
        "WORKER  PID  STATE  CONNECTIONS  REQUESTS  RESTARTS",
    ]


def test_ejected_backend_is_marked() -> None:
    body = status(pools={"web": {"policy": "random", "backends": [BACKEND | {"ejected": True}]}})
    assert "up (ejected)" in render_status(body)


def test_what_checks_and_operators_have_done_is_shown() -> None:
    checked = {"checked_seconds_ago": 0.42, "liveness": "unknown", "overridden": [], "effective_weight": 1}
    backends = [
        BACKEND | checked | {"name": "a", "weight": 3, "overridden": ["weight"]},
        BACKEND
        | checked
        | {"name": "b", "overridden": ["admin", "added"], "admin": "drain", "liveness": "alive"},
        BACKEND | checked | {"name": "c", "health": "starting", "weight": 2, "effective_weight": 1.1},
        BACKEND | checked | {"name": "d", "health": "down", "liveness": "dead", "checked_seconds_ago": 75.0},
        BACKEND | checked | {"name": "e", "ejected": True, "ejected_seconds_left": 12.3, "backup": True},
        BACKEND | checked | {"name": "f", "health": "checking", "checked_seconds_ago": None},
    ]
    pool = {"policy": "random", "panic": True, "removed": ["10.0.0.9:80"], "backends": backends}
    assert render_status(status(workers=[], pools={"web": pool})).splitlines()[3:] == [
        "",
        "pool web, random, PANIC: too few are available, so all that are ready get requests",
        "BACKEND     ADDRESS         WEIGHT  HEALTH                   CHECKED         ADMIN  IN FLIGHT  "
        "REQUESTS  FAILURES",
        "a           127.0.0.1:9001      3*  up                       0.4 s ago       ready          3  "
        "   30070         0",
        "b +         127.0.0.1:9001       1  up, alive                0.4 s ago       drain          3  "
        "   30070         0",
        "c           127.0.0.1:9001       2  starting 55%             0.4 s ago       ready          3  "
        "   30070         0",
        "d           127.0.0.1:9001       1  down, dead               1 min 15 s ago  ready          3  "
        "   30070         0",
        "e (backup)  127.0.0.1:9001       1  up (ejected, 12 s left)  0.4 s ago       ready          3  "
        "   30070         0",
        "f           127.0.0.1:9001       1  checking                 -               ready          3  "
        "   30070         0",
        "(* by `lbproc weight`; + by `lbproc backends add`; removed: 10.0.0.9:80)",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (303, "5 min 3 s"),
        (7800, "2 h 10 min"),
        (86400 * 3 + 3600 * 4, "3 d 4 h"),
    ],
)
def test_spans_have_two_units(seconds: float, text: str) -> None:
    assert render_span(seconds) == text


def test_json_is_the_answer_as_it_came(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with answering(path, encode(Reply(ok=True, body=status()))) as asked:
        result = CliRunner().invoke(main, ["status", "--json", "--socket", str(path)])
    assert result.exit_code == 0
    assert json.loads(result.output) == status()
    assert asked == [StatusRequest()]


def test_text_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with answering(path, encode(Reply(ok=True, body=status()))):
        result = CliRunner().invoke(main, ["status"], env={"LBPROC_SOCKET": str(path)})
    assert (result.exit_code, result.output) == (0, render_status(status()) + "\n")


@pytest.mark.parametrize("command", ["status", "stop"])
def test_nobody_there_exits_1_with_one_line(tmp_path: Path, command: str) -> None:
    result = CliRunner().invoke(main, [command, "--socket", str(tmp_path / "none.sock")])
    assert result.exit_code == 1
    assert result.stderr.startswith("lbproc: no lbproc is running here")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["status", "stop"])
def test_both_ways_to_name_the_socket_are_wrong_usage(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--socket", "a.sock", "-c", "lbproc.toml"])
    assert result.exit_code == 2
