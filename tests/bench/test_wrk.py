from __future__ import annotations

from pathlib import Path

import pytest

from bench.process import BenchError
from bench.rows import ROWS
from bench.wrk import Totals, read_totals, write_requests

OUTPUT = (
    "Running 1s test\n"
    'TOTALS {"requests":10,"microseconds":2000000,"bytes":25000000,"failures":1,"bad_statuses":2,'
    '"p50_us":3,"p90_us":4,"p99_us":5}\n'
)
ROW_OF = {row.name: row for row in ROWS}


def test_the_totals_are_read_from_among_the_rest() -> None:
    assert read_totals(OUTPUT, "", ROW_OF["keepalive"]) == Totals(10, 10, 2.0, 3, 3, 4, 5)


def test_the_work_of_large_answers_is_counted_by_their_bytes() -> None:
    assert read_totals(OUTPUT, "", ROW_OF["large"]).work == 2.5


@pytest.mark.parametrize(
    ("output", "message"),
    [("", "wrk failed:\nno such option"), (OUTPUT.replace(":10,", ":0,"), "nothing was answered")],
)
def test_a_run_without_answers_is_no_measurement(output: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        read_totals(output, "no such option", ROW_OF["keepalive"])


def test_requests_are_written_behind_their_lengths(tmp_path: Path) -> None:
    write_requests([b"GET /\n\n", b"POST /\r\n"], tmp_path / "requests")
    assert (tmp_path / "requests").read_bytes() == b"7\nGET /\n\n8\nPOST /\r\n"
