"""What testssl.sh, which looks for everything that was ever wrong with TLS, finds at a listener."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.certificates import Authority
from tests.e2e.harness_secure import tls_table

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import RequireProgram
    from tests.e2e.conftest import StartWeb
    from tests.e2e.harness_backend import Stage

pytestmark = [pytest.mark.slow, pytest.mark.soak]

FINE = {"OK", "INFO", "DEBUG"}

EXPLAINED = {
    "cipher_order",  # the client chooses
    "cert_revocation",  # of the test's certificate
    "DNS_CAArecord",  # of the test's names
    "HSTS",  # the backend's to say
    "security_headers",  # likewise
    "engine_problem",  # of the scanner's own OpenSSL
}
"""What docs/tls.md gives the reasons of."""


@pytest.mark.parametrize("rest", ["", 'min_version = "1.3"'], ids=["default", "1.3"])
def test_a_scanner_finds_no_vulnerability_and_nothing_that_is_not_explained(
    rest: str, tmp_path: Path, stage: Stage, start_web: StartWeb, require_program: RequireProgram
) -> None:
    scanner = require_program("testssl")
    authority = Authority()
    pairs = [authority.issue("www.example.com", kind=kind).toml(tmp_path, kind) for kind in ("ECDSA", "RSA")]
    server, address = start_web([stage.open("a")], rest=tls_table(pairs, rest))
    found = tmp_path / "found.json"
    subprocess.run(
        [
            *(scanner, "--warnings", "off", "--color", "0", "--quiet", "--full", "--ip", "127.0.0.1"),
            *("--add-ca", str(authority.write(tmp_path)), "--jsonfile", str(found)),
            f"https://www.example.com:{address.rpartition(':')[2]}",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=900,
        check=False,  # its status counts what is not perfect
    )
    findings: list[dict[str, Any]] = json.loads(found.read_text())
    vulnerabilities = [one for one in findings if "cve" in one or "cwe" in one]
    assert vulnerabilities
    assert [one for one in vulnerabilities if one["severity"] not in FINE] == []
    rest_of_it = {one["id"].partition(" ")[0] for one in findings if one["severity"] not in FINE}
    assert rest_of_it - EXPLAINED == set()
    assert server.is_ready()
