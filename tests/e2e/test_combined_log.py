"""The access log in the combined format, of a running lbproc."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import wait_until
from tests.e2e.harness_client import RawClient, fetch

if TYPE_CHECKING:
    from tests.e2e.conftest import StartWeb
    from tests.e2e.harness import LbprocServer
    from tests.e2e.harness_backend import Stage

pytestmark = pytest.mark.slow

MOMENT = re.compile(r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\]")


def lines(server: LbprocServer, number: int) -> list[str]:
    """The first lines of the access log, without their times."""
    found = wait_until(lambda: (text := server.access_lines())[number - 1 :] and text, "the lines")
    return [MOMENT.sub("[]", line) for line in found]


def test_each_request_is_a_line_whatever_it_was(stage: Stage, start_web: StartWeb) -> None:
    server, address = start_web([stage.open("a")], workers=1, log='format = "combined"')
    with RawClient(address) as client:
        for _ in range(3):  # the third finds its plan in the memo
            response = client.request("/x?y=z", headers=["User-Agent: probe/1", "Referer: http://a.example/"])
        assert response.status == 200
    fetch(address, "/post", method="POST", body=b"12345", headers=['User-Agent: a"b\\c\xe9'])
    with RawClient(address) as client:
        client.send(b"nonsense\r\n\r\n")
        assert client.read_response().status == 400
    *plain, post, bad = lines(server, 5)
    for line in plain:
        assert re.fullmatch(
            r'127\.0\.0\.1 - - \[\] "GET /x\?y=z HTTP/1\.1" 200 \d+ "http://a\.example/" "probe/1"', line
        )
    assert re.fullmatch(
        r'127\.0\.0\.1 - - \[\] "POST /post HTTP/1\.1" 200 \d+ "-" "a\\x22b\\x5Cc\\xE9"', post
    )
    assert re.fullmatch(r'127\.0\.0\.1 - - \[\] "-" 400 \d+ "-" "-"', bad)


def test_the_client_is_the_one_that_a_trusted_proxy_names(stage: Stage, start_web: StartWeb) -> None:
    server, address = start_web(
        [stage.open("a")], workers=1, log='format = "combined"', listener='trusted_proxies = "127.0.0.1"'
    )
    fetch(address, headers=["X-Forwarded-For: 192.0.2.7"])
    assert lines(server, 1)[0].startswith("192.0.2.7 - - []")


def test_a_reload_changes_the_format_also_of_connections_that_are_open(
    stage: Stage, start_web: StartWeb
) -> None:
    server, address = start_web([stage.open("a")], workers=1)
    with RawClient(address) as client:
        client.request("/before")
        text = server.config_path.read_text()
        server.config_path.write_text(text.replace("[log]", '[log]\nformat = "combined"'))
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: "reloaded" in server.events(), "the reload")
        client.request("/after")
    first, second = lines(server, 2)
    assert json.loads(first)["target"] == "/before"
    assert '"GET /after HTTP/1.1" 200 ' in second
