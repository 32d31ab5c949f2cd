# ruff: noqa: E501  messages stand here word for word, one on a line
from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from lbproc.config import values
from lbproc.config.model import LogConfig, RuntimeConfig
from tests.config.refusal import accepted, refusal

TIMEOUT: TypeAdapter[Any] = TypeAdapter(values.Timeout)
DRAIN: TypeAdapter[Any] = TypeAdapter(values.DrainTimeout)
HEADER_SIZE: TypeAdapter[Any] = TypeAdapter(values.HeaderSize)
BODY_SIZE: TypeAdapter[Any] = TypeAdapter(values.BodySize)
WORKERS: TypeAdapter[Any] = TypeAdapter(values.Workers)
HASH_KEY: TypeAdapter[Any] = TypeAdapter(values.HashKey)
BACKEND_NAME: TypeAdapter[Any] = TypeAdapter(values.BackendName)
ROUTE_NAME: TypeAdapter[Any] = TypeAdapter(values.RouteName)
USER: TypeAdapter[Any] = TypeAdapter(values.UserName)
SWITCH: TypeAdapter[Any] = TypeAdapter(values.Switch)
RUNTIME: TypeAdapter[Any] = TypeAdapter(RuntimeConfig)
LOG: TypeAdapter[Any] = TypeAdapter(LogConfig)


@pytest.mark.parametrize(
    ("kind", "value", "result"),
    [
        (TIMEOUT, "1ms", 0.001),
        (TIMEOUT, "365d", 31_536_000.0),
        (DRAIN, "0s", 0.0),
        (HEADER_SIZE, "1KiB", 1024),
        (HEADER_SIZE, 4096, 4096),
        (BODY_SIZE, 0, 0),
        (BODY_SIZE, "1TiB", 1024**4),
        (WORKERS, "auto", "auto"),
        (WORKERS, 1, 1),
        (WORKERS, 200, 200),
        (HASH_KEY, "client_ip", "client_ip"),
        (HASH_KEY, "path", "path"),
        (HASH_KEY, "header:X-User", "header:X-User"),
        (HASH_KEY, "cookie:session", "cookie:session"),
        (HASH_KEY, "query:q", "query:q"),
        (BACKEND_NAME, "10.0.0.1:80", "10.0.0.1:80"),
        (ROUTE_NAME, "api-v1.2_x", "api-v1.2_x"),
        (USER, "www-data", "www-data"),
        (SWITCH, True, True),
        (RUNTIME, {"max_columns": 8}, RuntimeConfig(max_columns=8)),
        (LOG, {"level": "debug"}, LogConfig(level="debug")),
    ],
)
def test_a_right_value_is_taken(kind: TypeAdapter[Any], value: object, result: object) -> None:
    assert accepted(kind, value) == result


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (TIMEOUT, 30, 'is an integer, not a duration; write the unit too, as a string such as "30s" or "30s"'),
        (TIMEOUT, 0.5, 'is a float, not a duration; write the unit too, as a string such as "0.5s" or "30s"'),
        (TIMEOUT, -1, 'is an integer, not a duration; write the unit too, as a string such as "30s"'),
        (TIMEOUT, float("inf"), 'is a float, not a duration; write the unit too, as a string such as "30s"'),
        (TIMEOUT, True, 'is a boolean, not a duration; write a duration such as "30s"'),
        (TIMEOUT, "soon", '"soon" is not a duration; write a number and a unit of ms, s, m, h or d, such as "30s"'),
        (TIMEOUT, "0s", '"0s" is too short; write a duration of "1ms" to "365d", such as "30s"'),
        (TIMEOUT, "366d", '"366d" is too long; write a duration of "1ms" to "365d", such as "30s"'),
        (HEADER_SIZE, "1B", '"1B" is too small; write a size of "1KiB" to "16MiB", such as "32KiB"'),
        (HEADER_SIZE, 10**9, '1000000000 is too large; write a size of "1KiB" to "16MiB", such as "32KiB"'),
        (HEADER_SIZE, "big", '"big" is not a size; write a number and a unit of B, KiB, MiB, GiB, kB, MB or GB, such as "16MiB"'),
        (BODY_SIZE, -1, '-1 is too small; write a size of "0B" to "1048576TiB", such as "1GiB"'),
        (BODY_SIZE, True, 'is a boolean, not a size; write a size such as "1GiB"'),
        (WORKERS, "4", 'is "4", not a number of workers; write "auto" or a whole number of 1 to 200, such as 4'),
        (WORKERS, 0, 'is 0, not a number of workers; write "auto" or a whole number of 1 to 200, such as 4'),
        (WORKERS, True, 'is a boolean, not a number of workers; write "auto" or a whole number of 1 to 200, such as 4'),
        (HASH_KEY, 1, 'is an integer, not what to hash; write what to hash such as "client_ip" or "header:X-User"'),
        (HASH_KEY, "clientip", '"clientip" is nothing that can be hashed; did you mean client_ip? write "client_ip", "path", "header:NAME", "cookie:NAME", "query:NAME", "sni" or "tls_session_id"'),
        (HASH_KEY, "zzz", '"zzz" is nothing that can be hashed; write "client_ip", "path", "header:NAME", "cookie:NAME", "query:NAME", "sni" or "tls_session_id"'),
        (HASH_KEY, "path:x", '"path:x" is nothing that can be hashed; did you mean path? write "client_ip", "path", "header:NAME", "cookie:NAME", "query:NAME", "sni" or "tls_session_id"'),
        (HASH_KEY, "header:", '"header:" names no header; write its name after the colon, such as "header:user"'),
        (HASH_KEY, "header:a b", '"header:a b" names no header; write its name after the colon, such as "header:user"'),
        (BACKEND_NAME, "", '"" is not a backend name; write 1 to 255 visible characters without spaces'),
        (BACKEND_NAME, "a b", '"a b" is not a backend name; write 1 to 255 visible characters without spaces'),
        (BACKEND_NAME, "a\n", '"a\\n" is not a backend name; write 1 to 255 visible characters without spaces'),
        (BACKEND_NAME, [], 'is an array, not a name; write a name such as "b1"'),
        (ROUTE_NAME, "a/b", '"a/b" is not a name; write 1 to 64 letters, digits, "_", "-" or ".", beginning with a letter or digit'),
        (ROUTE_NAME, 1, 'is an integer, not a name; write a name such as "api"'),
        (USER, "a:b", '"a:b" is not the name of a system user; write one such as "lbproc"'),
        (USER, 0, 'is an integer, not the name of a system user; write the name of a system user such as "lbproc"'),
        (SWITCH, "true", "is a string, not a boolean; write true or false, without quotes"),
        (RUNTIME, {"max_columns": 7}, "is 7, which is less than 8; write a whole number of 8 to 256"),
        (RUNTIME, {"max_columns": 257}, "is 257, which is more than 256; write a whole number of 8 to 256"),
        (RUNTIME, {"max_columns": True}, "is a boolean, not a whole number of 8 to 256; write a whole number of 8 to 256 such as 256"),
        (RUNTIME, {"max_columns": "8"}, "is a string, not a whole number of 8 to 256; write a whole number of 8 to 256 such as 256"),
        (LOG, {"level": 1}, 'is an integer, not a log level; write a log level such as "info"'),
        (LOG, {"level": "warn"}, '"warn" is not a log level; did you mean "warning"? "info", "debug", "warning" or "error" can stand here'),
        (LOG, {"level": "zzz"}, '"zzz" is not a log level; write "info", "debug", "warning" or "error"'),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_what_would_be_right(
    kind: TypeAdapter[Any], value: object, message: str
) -> None:
    assert refusal(kind, value) == message


def test_a_pool_is_named_by_a_string() -> None:
    assert values.parse_pool_reference("web") == "web"
    with pytest.raises(
        Exception, match='is a table, not the name of a pool; write the name of a pool such as "web"'
    ):
        values.parse_pool_reference({})


def test_spans_and_sizes_are_written_as_they_are_read() -> None:
    assert TIMEOUT.dump_python(75.0) == "75s"
    assert HEADER_SIZE.dump_python(32768) == "32KiB"
