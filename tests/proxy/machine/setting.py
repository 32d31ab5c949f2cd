"""The configuration of the machine's worker: one listener, one pool, limits that are soon met."""

from __future__ import annotations

from typing import Any

ADDRESSES = ("127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003")

MAX_HEAD = 2048
MAX_BODY = 6000

# The timeouts of listener and pool, in seconds, no two alike.
CONNECT = 1.0
READ = 1.5
WRITE = 2.0
BODY = 2.5
HEADER = 3.0
RESPONSE = 4.0
IDLE = 6.0
TUNNEL = 8.0

LINGER = 5.0
"""How long a connection that was ended early is read on; not configured."""

STEP = 0.5
"""How often the sweeper looks at the deadlines, which are met by so much late."""


def configuration(backends: int, cap: int | None) -> dict[str, Any]:
    return {
        "listeners": {
            "web": {
                "bind": "127.0.0.1:8080",
                "max_header_size": f"{MAX_HEAD}B",
                "max_body_size": f"{MAX_BODY}B",
                "timeouts": {
                    "header": f"{HEADER}s",
                    "body": f"{BODY}s",
                    "idle": f"{IDLE}s",
                    "write": f"{WRITE}s",
                    "tunnel": f"{TUNNEL}s",
                },
                "routes": [{"match": {"path_prefix": "/a"}, "pool": "web"}],
            }
        },
        "pools": {"web": pool(ADDRESSES[:backends], cap)},
    }


def pool(addresses: tuple[str, ...], cap: int | None) -> dict[str, Any]:
    return {
        "backends": [
            {"address": address} if cap is None else {"address": address, "max_connections": cap}
            for address in addresses
        ],
        "timeouts": {"connect": f"{CONNECT}s", "response": f"{RESPONSE}s", "read": f"{READ}s"},
    }
