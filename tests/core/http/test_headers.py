"""Connection and the sets of names."""

from __future__ import annotations

import pytest

from lbproc.core.http.headers import connection_tokens, is_forwarding_name, without_underscores
from lbproc.core.http.rejected import bad_request, bad_response
from tests.core.http.messages import refused


@pytest.mark.parametrize(
    ("values", "tokens"),
    [
        ([], set()),
        ([b""], set()),
        ([b"close"], {b"close"}),
        ([b"Keep-Alive, Upgrade"], {b"keep-alive", b"upgrade"}),
        ([b" , close ,, X-A\t,"], {b"close", b"x-a"}),
        ([b"close", b"x-b"], {b"close", b"x-b"}),
        ([b"x-" + b"a" * 200], {b"x-" + b"a" * 200}),
    ],
)
def test_reads_lists_of_tokens_in_any_case(values: list[bytes], tokens: set[bytes]) -> None:
    assert connection_tokens(values, bad_request) == tokens


@pytest.mark.parametrize("value", [b"a b", b"close; x", b'"close"', b"close, a=b", b"\xff", b"a/b"])
def test_anything_but_tokens_is_refused(value: bytes) -> None:
    with refused(400, "list of tokens"):
        connection_tokens([value], bad_request)
    with refused(502, "list of tokens"):
        connection_tokens([value], bad_response)


@pytest.mark.parametrize(
    "name",
    [
        b"Content-Length", b"Transfer-Encoding", b"Host", b"X-Forwarded-For", b"X-Forwarded-Anything",
        b"Forwarded", b"X-Real-IP", b"X-Request-Id", b"Authorization", b"Proxy-Authorization", b"Cookie",
        b"Via", b"traceparent", b"content_length", b"x_forwarded_for",
    ],
)  # fmt: skip
def test_connection_never_names_what_others_rest_on(name: bytes) -> None:
    with refused(400, "must not remove"):
        connection_tokens([b"close, " + name], bad_request)


def test_forwarding_names_and_underscores() -> None:
    assert is_forwarding_name(b"x-forwarded-prefix")
    assert is_forwarding_name(b"forwarded")
    assert is_forwarding_name(b"x-client-cert-san")
    assert not is_forwarding_name(b"x-forward")
    assert without_underscores(b"a_b-c_") == b"a-b-c-"
