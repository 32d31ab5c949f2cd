"""Certificates of the whole supervisor: warned of, shown, and taken again when their files change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lbproc.core.control.messages import Reply
from lbproc.supervisor import certificates, shell
from tests.certificates import Authority
from tests.supervisor.running import RunningSupervisor, wait_for

pytestmark = pytest.mark.slow

ROOT = Authority()


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """For supervisors that are forked from here."""
    monkeypatch.setattr(certificates, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(shell, "TICK", 0.05)


def use(running: RunningSupervisor, **keys: Any) -> Reply:
    """Reloads with TLS at the listener."""
    pair = {name: str(running.directory / f"a.{name}") for name in ("pem", "key")}
    table = {"certificates": [{"cert": pair["pem"], "key": pair["key"]}], **keys}
    running.rewrite(listeners={"web": {"tls": table}})
    return running.reload()


def shown(running: RunningSupervisor) -> dict[str, Any]:
    (certificate,) = running.state()["certificates"]
    return dict(certificate)


def test_changed_files_are_taken_without_the_configuration_and_what_is_half_written_is_not(
    tmp_path: Path,
) -> None:
    ROOT.issue("one.com", days=10).write(tmp_path, "a")
    with RunningSupervisor(tmp_path) as running:
        assert running.state()["certificates"] == []
        reply = use(running, watch=True)
        assert reply.ok, reply
        certificate = shown(running)
        assert (certificate["listener"], certificate["names"], certificate["days_left"]) == (
            "web",
            ["one.com"],
            9,
        )
        assert (
            "certificate_expires key=listeners.web.tls.certificates[0] names=one.com"
            in running.wait_for_log("certificate_expires")
        )
        other = tmp_path / "other.toml"
        running.rewrite(log={"level": "debug"})
        running.file.rename(other)
        assert running.reload(file=other).ok
        other.write_text("no configuration")
        two = ROOT.issue("two.com")
        two.write(tmp_path, "a")
        log = running.wait_for_log("reloaded generation=4")
        assert f'certificates_changed files="{tmp_path}/a.key, {tmp_path}/a.pem"' in log
        assert "certificate replaced: two.com, until" in log
        assert shown(running)["names"] == ["two.com"]
        assert running.state()["config"] == str(other)
        three = ROOT.issue("three.com")
        (tmp_path / "a.pem").write_bytes(three.chain)
        log = running.wait_for_log("reload_refused")
        assert "the key is not that of the certificate beside it" in log
        assert shown(running)["names"] == ["two.com"]
        assert "the key is not" in running.state()["reload"]["last_refusal"]
        (tmp_path / "a.key").write_bytes(three.key)
        log = running.wait_for_log("reloaded generation=5")
        assert log.count("reload_refused") == 1
        assert shown(running)["names"] == ["three.com"]
        assert running.state()["reload"]["last_refusal"] is None
        assert "PRIVATE" not in running.error_log.read_text()


def test_without_watch_a_reload_takes_them_and_warns(tmp_path: Path) -> None:
    ROOT.issue("one.com").write(tmp_path, "a")
    with RunningSupervisor(tmp_path) as running:
        reply = use(running)
        assert isinstance(reply.body, dict)
        assert (reply.body["outcome"], reply.body["warnings"]) == ("done", [])
        ROOT.issue("two.com", days=5).write(tmp_path, "a")
        (tmp_path / "a.key").chmod(0o644)
        reply = running.reload()
        assert isinstance(reply.body, dict)
        expires, readable = reply.body["warnings"]
        assert "expires in 4 days" in expires
        assert "others may read or write" in readable
        assert [change.partition(": ")[2].partition(" ")[0] for change in reply.body["changes"]] == [
            "certificate",
            "another",
        ]
        log = running.error_log.read_text()
        assert log.count("config_warning") == 2
        assert shown(running)["names"] == ["two.com"]
        (tmp_path / "a.key").write_bytes(ROOT.issue("x").key)
        refused = running.reload()
        assert not refused.ok
        assert "the key is not that of the certificate beside it" in str(refused.body)
        wait_for(lambda: shown(running)["names"] == ["two.com"], "what was in force")
        assert "certificates_changed" not in running.error_log.read_text()
