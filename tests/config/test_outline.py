from __future__ import annotations

import pytest

from lbproc.config import health, model, tls
from lbproc.config.health import CheckTlsConfig, ExpectConfig, HealthConfig
from lbproc.config.limits import LimitConfig
from lbproc.config.outlier import OutlierConfig
from lbproc.config.outline import TABLES, header, table_at
from lbproc.config.retries import RetriesConfig
from lbproc.config.table import Table
from lbproc.config.tls import BackendTlsConfig, CertificateConfig, KeyPairConfig, TlsConfig


def test_every_table_of_the_model_stands_at_its_path() -> None:
    expected = {
        (): model.Config,
        ("runtime",): model.RuntimeConfig,
        ("admin",): model.AdminConfig,
        ("log",): model.LogConfig,
        ("listeners", None): model.ListenerConfig,
        ("listeners", None, "tls"): TlsConfig,
        ("listeners", None, "tls", "certificates", None): CertificateConfig,
        ("listeners", None, "timeouts"): model.ListenerTimeouts,
        ("listeners", None, "routes", None): model.RouteConfig,
        ("listeners", None, "routes", None, "match"): model.MatchConfig,
        ("pools", None): model.PoolConfig,
        ("pools", None, "backends", None): model.BackendConfig,
        ("pools", None, "retries"): RetriesConfig,
        ("pools", None, "outlier"): OutlierConfig,
        ("pools", None, "timeouts"): model.PoolTimeouts,
        ("pools", None, "tls"): BackendTlsConfig,
        ("pools", None, "tls", "certificate"): KeyPairConfig,
        ("pools", None, "health"): HealthConfig,
        ("pools", None, "health", "expect"): ExpectConfig,
        ("pools", None, "health", "tls"): CheckTlsConfig,
        ("limits", None): LimitConfig,
    }
    assert expected == TABLES
    defined = {
        kind
        for module in (model, health, tls)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Table)
    }
    assert defined == {*TABLES.values(), Table}


def test_a_table_is_found_by_its_path() -> None:
    assert table_at(()) is model.Config
    assert table_at(("pools", "web", "backends", 3)) is model.BackendConfig
    with pytest.raises(KeyError):
        table_at(("pools", "web", "nothing"))


def test_a_header_is_written_as_in_toml() -> None:
    assert header(("log",)) == "[log]"
    assert header(("pools", None)) == "[pools.NAME]"
    assert header(("pools", None, "timeouts")) == "[pools.NAME.timeouts]"
    assert header(("pools", None, "backends", None)) == "[[pools.NAME.backends]]"
    assert header(("listeners", "a b", "routes", 2)) == '[[listeners."a b".routes]]'
    assert header(("listeners", None, "routes", None, "match")) == "[listeners.NAME.routes.match]"
