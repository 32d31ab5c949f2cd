"""The proof that keys of session tickets can be shared here: a session that goes on in another context.

Runs real handshakes in memory, on TLS 1.2 and 1.3. It may crash the process that runs it, which therefore is
one that nobody misses: see `SharedTickets.prove`.
"""

from __future__ import annotations

import ssl

from lbproc.core.tls.ticket_keys import KEY_SIZE
from lbproc.net.tls.context import load_key_pair
from lbproc.net.tls.openssl import set_ticket_keys, store_no_sessions

_VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
_STEPS = 6


def can_share_tickets(chain: bytes, key: bytes) -> bool:
    """Whether a session is resumed where the keys are the same, and only there.

    Args:
        chain: a server's certificate, in PEM form.
        key: its private key.

    Raises:
        UnknownLayoutError, ssl.SSLError, OSError: it is not possible.
    """
    return all(_can_share(version, chain, key) for version in _VERSIONS)


def _can_share(version: ssl.TLSVersion, chain: bytes, key: bytes) -> bool:
    same = bytes(range(KEY_SIZE))
    first, second, third = (_server(version, chain, key, keys) for keys in (same, same, same[::-1]))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    was_resumed, session = _connect(client, first, None)
    if was_resumed or session is None:
        return False
    # Also the other way round: a session that went on anywhere would prove nothing.
    return _connect(client, second, session)[0] and not _connect(client, third, session)[0]


def _server(version: ssl.TLSVersion, chain: bytes, key: bytes, keys: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    load_key_pair(context, chain, key)
    set_ticket_keys(context, keys)
    store_no_sessions(context)
    return context


def _connect(
    client: ssl.SSLContext, server: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[bool, ssl.SSLSession | None]:
    """One connection: whether it resumed the session, and the session that it leaves."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(down, up, session=session),
        server.wrap_bio(up, down, server_side=True),
    )
    for _ in range(_STEPS):
        for end in ends:
            try:
                end.do_handshake()
                end.read(1)  # which takes the tickets
            except ssl.SSLWantReadError:
                continue
    return bool(ends[0].session_reused), ends[0].session
