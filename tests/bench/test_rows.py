from __future__ import annotations

import json

import pytest

from bench.rows import (
    BODIES,
    BROWSER_REQUESTS,
    DISTINCT_REQUESTS,
    ROWS,
    Row,
    browser_heads,
    distinct_heads,
    json_posts,
)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_every_request_is_one_complete_request(row: Row) -> None:
    for request in row.make()[:50]:
        head, end, body = request.partition(b"\r\n\r\n")
        assert end
        line, *fields = head.split(b"\r\n")
        assert line.endswith(b" HTTP/1.1")
        assert sum(field.startswith(b"Host: ") for field in fields) == 1
        lengths = [int(field[16:]) for field in fields if field.startswith(b"Content-Length: ")]
        assert lengths == ([len(body)] if body else [])
        assert row.close == (b"Connection: close" in fields)


@pytest.mark.slow
def test_distinct_heads_never_repeat() -> None:
    heads = distinct_heads()
    assert len(set(heads)) == len(heads) == DISTINCT_REQUESTS


@pytest.mark.slow
def test_heads_of_browsers_repeat_in_their_lines_and_seldom_as_a_whole() -> None:
    heads = browser_heads()
    assert len(heads) == BROWSER_REQUESTS
    assert len(set(heads)) > 0.8 * len(heads)
    lines = [line for head in heads for line in head.split(b"\r\n")[:-2]]
    assert len(set(lines)) < 0.02 * len(lines)
    assert all(12 <= head.count(b"\r\n") - 1 <= 16 for head in heads)


def test_posts_have_bodies_of_their_own_under_one_head() -> None:
    parts = [post.split(b"\r\n\r\n") for post in json_posts()]
    assert len({head for head, _ in parts}) == 1
    assert len({body for _, body in parts}) == BODIES
    assert all(isinstance(json.loads(body), dict) and 350 <= len(body) <= 450 for _, body in parts)
