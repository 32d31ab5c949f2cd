"""``lbproc cert self-signed``: a certificate to begin with, and an authority of one's own that signs it.

Owns the files, what is never overwritten, and what is printed. What stands in the files is
``lbproc.config.local_authority``'s.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lbproc.config.certified import date, today
from lbproc.config.pem_file import read_pem
from lbproc.config.source import shown
from lbproc.config.wording import quote
from lbproc.errors import LbprocError

if TYPE_CHECKING:
    from lbproc.config.local_authority import Made
    from lbproc.types import Seconds

AUTHORITY = "lbproc-ca"
_READABLE = 0o644
_SECRET = 0o600


@click.group()
def cert() -> None:
    """Makes certificates."""


@cert.command("self-signed")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--out",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("tls"),
    metavar="DIR",
    help="Where the files go, tls if not given; made if it is not there.",
)
@click.option(
    "--days",
    type=click.IntRange(1, 825),
    default=365,
    metavar="N",
    help="How long the certificate is valid, 365 if not given; clients refuse more than 825.",
)
@click.option("--force", is_flag=True, help="Replace a certificate that is there. Never the authority.")
def self_signed(names: tuple[str, ...], directory: Path, *, days: int, force: bool) -> None:
    """Make a certificate for host names and IP addresses, signed by an authority of your own.

    The authority is made once, in the same directory, and used again; clients have to trust it once. For
    machines of your own: nobody else knows it. *.example.com is every name one label below example.com.
    """
    from lbproc.config.local_authority import checked_name, issue  # noqa: PLC0415  takes its time to import

    checked: list[str] = []
    for name in names:
        try:
            checked.append(checked_name(name))
        except ValueError as error:
            raise LbprocError(f"{quote(name)} is no host name and no IP address; {error}") from None
    stem = directory / checked[0].replace("*", "wildcard").replace(":", "_")
    cert_path, key_path = stem.with_name(stem.name + ".pem"), stem.with_name(stem.name + ".key")
    if stem.name == AUTHORITY:
        raise LbprocError(
            f"{quote(AUTHORITY)} is the name of the authority's files; write another name first"
        )
    for path in (cert_path, key_path):
        if not force and os.path.lexists(path):
            raise LbprocError(f"{shown(path)} is there already; name another directory, or write --force")
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    now = today()
    authority, is_new = _authority(directory, now)
    made = issue(authority, list(dict.fromkeys(checked)), days, now)
    _write(key_path, made.key, _SECRET, replace=force)
    _write(cert_path, made.cert, _READABLE, replace=force)
    click.echo(_report(checked, directory, cert_path, key_path, made, is_new=is_new))


def _authority(directory: Path, now: Seconds) -> tuple[Made, bool]:
    """The authority of a directory, and whether it was made now."""
    from lbproc.config.local_authority import make_authority, read_authority  # noqa: PLC0415  likewise

    cert_path, key_path = _authority_files(directory)
    if not os.path.lexists(cert_path) and not os.path.lexists(key_path):
        made = make_authority(now)
        _write(key_path, made.key, _SECRET, replace=False)
        _write(cert_path, made.cert, _READABLE, replace=False)
        return made, True
    for path in (cert_path, key_path):
        if not os.path.lexists(path):
            raise LbprocError(f"{shown(path)} is missing; bring it back, or name another directory")
    try:
        return read_authority(read_pem(cert_path).octets, read_pem(key_path).octets, now), False
    except ValueError as error:
        raise LbprocError(f"the authority {shown(cert_path)} is of no use: {error}") from None


def _authority_files(directory: Path) -> tuple[Path, Path]:
    return directory / f"{AUTHORITY}.pem", directory / f"{AUTHORITY}.key"


def _write(path: Path, content: bytes, mode: int, *, replace: bool) -> None:
    """Writes a whole file or none: it has its mode before it has its name, and is never seen half written."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(content)
        if replace:
            Path(temporary).replace(path)
            return
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise LbprocError(f"{shown(path)} is there already; name another directory") from None
    finally:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()


def _report(
    names: list[str], directory: Path, cert_path: Path, key_path: Path, made: Made, *, is_new: bool
) -> str:
    """What was made, what to write into the configuration, and how clients come to trust it."""
    authority, secret = map(shown, _authority_files(directory))
    host = names[0].replace("*", "www", 1)
    host = f"[{host}]" if ":" in host else host
    what = "A new authority" if is_new else "The authority that was there"
    return f"""\
{shown(cert_path)} and {shown(key_path)}: {", ".join(names)}, until {date(made.not_after)}
{what} signed it: {authority}

In the configuration (paths count from its directory):

  [listeners.web.tls]
  certificates = [{{ cert = {quote(str(cert_path))}, key = {quote(str(key_path))} }}]

Clients have to trust {authority}, once:

  curl --cacert {authority} https://{host}:PORT/
  Debian, Ubuntu:  sudo cp {authority} /usr/local/share/ca-certificates/lbproc-ca.crt
                   sudo update-ca-certificates
  Fedora, RHEL:    sudo trust anchor {authority}
  macOS:           sudo security add-trusted-cert -d -k /Library/Keychains/System.keychain {authority}
  Firefox:         Settings, Certificates, View Certificates, Authorities, Import

Keep {secret} to yourself: who has it can pretend to be any site to these clients."""
