"""Whether the access log and the counters tell what happened: each request once, as it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lbproc.shm.views import BackendCounter, WorkerCounter
from lbproc.types import Row
from tests.proxy.machine.account import require
from tests.proxy.machine.setting import ADDRESSES

if TYPE_CHECKING:
    from tests.proxy.machine.account import Final
    from tests.proxy.machine.client_view import ClientView
    from tests.proxy.machine.world import MachineRig

Line = dict[str, Any]


def judge_books(rig: MachineRig, views: list[ClientView]) -> None:
    """Holds the log and the counters against what was seen."""
    lines: list[Line] = [json.loads(line) for line in rig.log_lines()]
    _judge_totals(rig, lines)
    _judge_connections(rig)
    clients = {view.ip.decode() for view in views}
    require({line["client_ip"] for line in lines} <= clients, "a line about nobody", lines)
    for view in views:
        _judge_client(view, [line for line in lines if line["client_ip"] == view.ip.decode()])


def _judge_totals(rig: MachineRig, lines: list[Line]) -> None:
    totals = rig.reader.worker_totals()
    require(totals[WorkerCounter.REQUESTS] == len(lines), "requests and lines differ", totals, len(lines))
    counted = list(totals[WorkerCounter.RESPONSES_1XX : WorkerCounter.RESPONSES_5XX + 1])
    classes = [sum(line["status"] // 100 == number for line in lines) for number in range(1, 6)]
    require(counted == classes, "classes and lines differ", counted, classes)
    gone = sum(line["status"] == 499 for line in lines)
    require(totals[WorkerCounter.CLIENT_GONE] == gone, "clients that left are counted wrong")
    rejected = sum(line["method"] is None for line in lines)
    require(totals[WorkerCounter.REJECTED] == rejected, "rejected requests are counted wrong", lines)
    require(totals[WorkerCounter.TUNNELS] == 0, "tunnels that are left open")
    require(totals[WorkerCounter.DEFECTS] == 0, "defects")


def _judge_connections(rig: MachineRig) -> None:
    rows = rig.reader.backends_totals([Row(number) for number in range(len(ADDRESSES))])
    connects = sum(row[BackendCounter.CONNECTS] for row in rows)
    require(connects == len(rig.dialled), "connects are counted wrong", connects, rig.dialled)
    reuses = sum(row[BackendCounter.REUSES] for row in rows)
    again = sum(max(0, len(conn.view.arrivals) - 1) for conn in rig.conns)
    require(reuses >= again, "reuses are counted wrong", reuses, again)


def _judge_client(view: ClientView, lines: list[Line]) -> None:
    """A line for each response, in order, and at most one more: for a request without a response."""
    finals = view.finals
    require(len(finals) <= len(lines) <= len(finals) + 1, "lines and responses differ", finals, lines)
    for index, final in enumerate(finals):
        _judge_line(view, index, final, lines[index])
    for line in lines[len(finals) :]:
        require(not view.account.orderly, "a line without a response though nobody misbehaved", lines)
        require(view.has_begun(len(finals)), "a line about no request", line)


def _judge_line(view: ClientView, index: int, final: Final, line: Line) -> None:
    arrival = final.arrival
    require(final.status == line["status"], "a line with another status", final, line)
    if attempts := view.attempts.get(index):
        request_id = attempts[-1].request_id.decode()
        require(line["request_id"] == request_id, "a line with another id", request_id, line)
    if final.is_complete or arrival is not None:
        sent = final.after + final.head_bytes + final.body_bytes
        sent += view.tunnel_seen if final.status == 101 else 0
        require(line["bytes_out"] == sent, "a line with another size", final, line)
    if arrival is not None:
        require(line["backend"] == arrival.conn.address, "a line with another backend", line)
    if final.is_complete and final.status != 101 and arrival is not None and arrival.is_complete:
        request = view.requests[index]
        size = len(request.head) - 2 * request.spec.empty_line + len(request.body)
        require(line["bytes_in"] == size, "a line with another request size", line, size)
