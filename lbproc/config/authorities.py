"""Files of certificate authorities: read once, with the configuration, so that all processes see the same.

Owns what is taken from such a file. Who trusts the authorities makes a context of the text, without a file.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

from pydantic import ValidationInfo

from lbproc.config.place import resolve_path, surroundings
from lbproc.config.wording import quote, wrong, wrong_type


@dataclass(frozen=True, slots=True)
class Authorities:
    """The certificates of a file, read once, when the configuration is."""

    pem: str = field(repr=False)
    path: str


def parse_authorities(value: object, info: ValidationInfo) -> Authorities:
    """The file of the authorities that signed the backends' certificates."""
    if not isinstance(value, str):
        raise wrong_type(value, "the path of a file", '"tls/ca.pem"')
    if not value or not value.isprintable() or value.endswith("/"):
        raise wrong(f"{quote(value)} is not the path of a file", 'write one such as "tls/ca.pem"')
    path = resolve_path(value, surroundings(info))
    try:
        pem = surroundings(info).read_file(path)
        ssl.create_default_context(cadata=pem)
    except ssl.SSLError:
        reason = "it holds no certificate in PEM form"
    except OSError as error:
        reason = error.strerror or "it cannot be read"
    except ValueError as error:
        reason = str(error)
    else:
        return Authorities(pem, str(path))
    raise wrong(
        f"the file {quote(str(path))} gives no certificates: {reason}",
        'write the path of a readable file of certificates in PEM form, such as "tls/ca.pem"',
    )
