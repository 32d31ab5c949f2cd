"""What a client's certificate says of the client, as text that may stand in headers.

Owns the value. The reading is `core.tls.certificate_reader`'s, which imports ``cryptography``: only who asks
clients for certificates does that, before the first of them comes, because a process that has given up its
rights may not be able to.
"""

from __future__ import annotations

from lbproc.core.http.value import value
from lbproc.errors import StartError


@value
class ClientCertificate:
    """What goes to backends.

    Attributes:
        subject: as RFC 4514 writes it, with everything but ASCII escaped.
        names: ``DNS:a.example.com, URI:spiffe://example.com/b``; what has a meaning in such a list is
            percent-encoded.
        fingerprint: SHA-256 in hexadecimal.
        common_name: of the subject, as it is; "" if it has none, or one that is not printable.
    """

    subject: str
    names: str
    fingerprint: str
    common_name: str


def load_reader() -> None:
    """Imports what reads certificates, with everything that it may need. Takes some 20 ms the first time.

    Raises:
        StartError: this process cannot import it.
    """
    try:
        import lbproc.core.tls.certificate_reader  # noqa: F401, PLC0415  only where it is needed
    except (ImportError, OSError) as error:
        raise StartError(
            f"the library that reads certificates of clients cannot be loaded ({error}); "
            "restart lbproc, which loads it before it gives up its rights"
        ) from error


def read_certificate(der: bytes) -> ClientCertificate:
    """Reads a certificate that was verified.

    Raises:
        ValueError: it cannot be read, or says more than fits.
    """
    from lbproc.core.tls.certificate_reader import read  # noqa: PLC0415  loaded long before

    return read(der)
