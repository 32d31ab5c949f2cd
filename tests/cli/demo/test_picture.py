from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from lbproc.cli.demo.picture import Heading, TrafficScene, draw, render_line, render_summary
from lbproc.cli.demo.scene import Sampler, Scene
from tests.cli.demo.statuses import status

HEADING = Heading(
    "http://127.0.0.1:8080", "round_robin", "c", "lbproc status --socket /tmp/x/control.sock", 12
)
TRAFFIC = TrafficScene(answered=2400, failed=0, latency=0.0312)


def scene(requests: dict[str, int], in_flight: int = 2, pid: int | None = 4242) -> Scene:
    sampler = Sampler()
    sampler.observe(0.0, status(dict.fromkeys(requests, 0), 0, pid))
    return sampler.observe(10.0, status(requests, in_flight, pid))


def picture(what: Scene, heading: Heading = HEADING, traffic: TrafficScene = TRAFFIC, width: int = 80) -> str:
    console = Console(file=StringIO(), width=width, force_terminal=False)
    console.print(draw(heading, what, traffic, width))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_picture_fits_80_columns_and_24_lines() -> None:
    lines = picture(scene({"a": 1000, "b": 1000, "c": 400})).splitlines()
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


def test_backends_show_share_count_rate_and_requests_in_flight() -> None:
    lines = picture(scene({"a": 1000, "b": 1000, "c": 500})).splitlines()
    a, c = (next(line for line in lines if line.startswith(name)) for name in ("a ", "c "))
    assert a.split() == ["a", "127.0.0.1:9001", "█" * 18, "40.0", "%", "1", "000", "100", "●●"]
    assert c.split() == ["c", "127.0.0.1:9003", "slow", "█" * 9 + "░" * 9, "20.0", "%", "500", "50", "●●"]


def test_many_in_flight_are_a_number() -> None:
    assert "●●●●●●●● 25" in picture(scene({"a": 10}, in_flight=25))


def test_no_requests_yet_are_empty_bars() -> None:
    assert "█" not in picture(scene({"a": 0, "b": 0}))


def test_workers_and_what_to_try() -> None:
    text = picture(scene({"a": 10}))
    assert "0       4242  ready" in text
    assert "curl -i http://127.0.0.1:8080/" in text
    assert "lbproc status --socket /tmp/x/control.sock" in text
    assert "kill -9 4242" in text
    assert "Ctrl-C" in text


def test_slot_without_a_process_is_not_offered_for_killing() -> None:
    text = picture(scene({"a": 10}, pid=None))
    assert "kill -9" not in text


def test_traffic_in_words() -> None:
    assert "12 clients: 2 400 answers, half of them within 31 ms, 0 failed" in picture(scene({"a": 10}))
    assert "12 clients: 0 answers, 1 failed" in picture(scene({"a": 10}), traffic=TrafficScene(0, 1, None))


def test_without_clients_the_traffic_is_yours() -> None:
    heading = Heading("http://127.0.0.1:8080", "random", "c", "lbproc status", 0)
    assert "no traffic of its own" in picture(scene({"a": 10}), heading)


@pytest.mark.parametrize("width", [20, 40, 200])
def test_any_width_can_be_drawn(width: int) -> None:
    assert max(map(len, picture(scene({"a": 10}), width=width).splitlines())) <= width


def test_line_is_ascii_and_complete() -> None:
    line = render_line(scene({"a": 600, "b": 400}), TRAFFIC)
    assert line == " 10.0 s   100 req/s  a 600 (60%, 2 in flight)  b 400 (40%, 2 in flight)  failed 0"
    assert line.isascii()


def test_summary() -> None:
    text = render_summary(scene({"a": 600, "b": 400}), TrafficScene(998, 2, 0.03))
    assert text == "1000 requests in 10 s (a 60.0 %, b 40.0 %), 2 failed."
