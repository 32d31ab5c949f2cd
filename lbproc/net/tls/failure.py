"""Why a handshake failed, in our words: a short reason to count by and a line for people.

Owns the translation of what OpenSSL says. Its texts name alerts, checks and host names, and never a key.
"""

from __future__ import annotations

import ssl
from typing import Final, Literal

TlsReason = Literal[
    "timeout",
    "closed",
    "not_tls",
    "version",
    "cipher",
    "certificate_missing",
    "certificate_rejected",
    "refused_by_peer",
    "malformed",
]
"""Why a handshake failed.

``timeout``: it was not over in time. ``closed``: the peer left. ``not_tls``: it speaks plain HTTP.
``version``, ``cipher``: nothing in common. ``certificate_missing``: the client has shown none.
``certificate_rejected``: the peer's is not good, the detail says why. ``refused_by_peer``: the peer said no,
the detail is its alert. ``malformed``: everything else that is no TLS, or breaks its rules.
"""

_REASONS: Final[dict[str, TlsReason]] = {
    "HTTP_REQUEST": "not_tls",
    "HTTPS_PROXY_REQUEST": "not_tls",
    "UNSUPPORTED_PROTOCOL": "version",
    "WRONG_SSL_VERSION": "version",
    "VERSION_TOO_LOW": "version",
    "NO_PROTOCOLS_AVAILABLE": "version",
    "INAPPROPRIATE_FALLBACK": "version",
    "NO_SHARED_CIPHER": "cipher",
    "NO_SHARED_GROUPS": "cipher",
    "NO_SUITABLE_KEY_SHARE": "cipher",
    "NO_SUITABLE_GROUPS": "cipher",
    "NO_SHARED_SIGNATURE_ALGORITHMS": "cipher",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "cipher",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "certificate_missing",
    "CERTIFICATE_VERIFY_FAILED": "certificate_rejected",
}
_ALERT: Final = "_ALERT_"


class TlsFailed(Exception):  # noqa: N818  it is what happened to the handshake, and mostly the peer's doing
    """No TLS connection came about. The transport is only good for closing.

    Args:
        reason: The class of the failure.
        detail: A line for people.
    """

    def __init__(self, reason: TlsReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: TlsReason = reason
        self.detail = detail


def tls_failed(error: ssl.SSLError) -> TlsFailed:
    """What an error in a handshake means."""
    code = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsFailed("certificate_rejected", error.verify_message.rstrip("."))
    if _ALERT in code:
        return TlsFailed("refused_by_peer", _words(code.partition(_ALERT)[2]))
    return TlsFailed(_REASONS.get(code, "malformed"), describe(error))


def describe(error: ssl.SSLError) -> str:
    """What OpenSSL says went wrong, such as ``decryption failed or bad record mac``."""
    return _words(error.reason or "TLS error")


def _words(code: str) -> str:
    return code.replace("_", " ").lower()
