"""Where bodies end."""

from __future__ import annotations

import pytest

from lbproc.core.http.framing import (
    CHUNKED,
    NO_BODY,
    UNTIL_CLOSE,
    Framing,
    FramingKind,
    request_framing,
    response_framing,
)
from tests.core.http.messages import refused


def test_a_request_without_framing_fields_has_no_body() -> None:
    assert request_framing([], [], http10=False) is NO_BODY


@pytest.mark.parametrize(("value", "length"), [(b"0", 0), (b"12", 12), (b"007", 7), (b"9" * 18, 10**18 - 1)])
def test_a_length_is_digits(value: bytes, length: int) -> None:
    assert request_framing([value], [], http10=False) == Framing(FramingKind.LENGTH, length)


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked"])
def test_chunked_in_any_case(coding: bytes) -> None:
    assert request_framing([], [coding], http10=False) is CHUNKED


@pytest.mark.parametrize(
    "lengths",
    [
        [b"2", b"2"],
        [b"2", b"3"],
        [b"2, 2"],
        [b"+2"],
        [b"-2"],
        [b""],
        [b"0x2"],
        [b"2 "],
        [b"1" * 19],
        [b"\xb2"],
    ],
)
def test_a_doubtful_length_is_refused(lengths: list[bytes]) -> None:
    with refused(400, "Content-Length"):
        request_framing(lengths, [], http10=False)
    with refused(502, "Content-Length"):
        response_framing(lengths, [], http10=False, status=200, request_method=b"GET")


@pytest.mark.parametrize(
    ("lengths", "codings", "http10", "status"),
    [
        ([b"2"], [b"chunked"], False, 400),
        ([], [b"chunked"], True, 400),
        ([], [b"chunked", b"chunked"], False, 400),
        ([], [b""], False, 400),
        ([], [b"xchunked"], False, 501),
        ([], [b"chunked, identity"], False, 501),
        ([], [b"gzip, chunked"], False, 501),
        ([], [b"identity"], False, 501),
        ([], [b"\x0bchunked"], False, 501),
    ],
)
def test_a_doubtful_coding_is_refused(
    lengths: list[bytes], codings: list[bytes], http10: bool, status: int
) -> None:
    with refused(status):
        request_framing(lengths, codings, http10=http10)
    with refused(502):
        response_framing(lengths, codings, http10=http10, status=200, request_method=b"GET")


def test_a_response_ends_by_length_by_chunks_or_by_closing() -> None:
    def framing(lengths: list[bytes], codings: list[bytes]) -> Framing:
        return response_framing(lengths, codings, http10=False, status=200, request_method=b"GET")

    assert framing([b"5"], []) == Framing(FramingKind.LENGTH, 5)
    assert framing([], [b"chunked"]) is CHUNKED
    assert framing([], []) is UNTIL_CLOSE


@pytest.mark.parametrize(
    ("status", "method"),
    [(200, b"HEAD"), (204, b"GET"), (304, b"GET"), (100, b"GET"), (101, b"GET"), (199, b"GET")],
)
def test_some_responses_have_no_body_whatever_they_say(status: int, method: bytes) -> None:
    assert response_framing([b"5"], [], http10=False, status=status, request_method=method) is NO_BODY
    with refused(502):
        response_framing([b"5"], [b"chunked"], http10=False, status=status, request_method=method)
