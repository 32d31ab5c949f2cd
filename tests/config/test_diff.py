"""What differs between two configurations."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest

from lbproc.config.diff import FIXED, Change, addresses, diff, why_not
from lbproc.config.model import Config
from lbproc.config.pem import PemFile
from lbproc.config.pem_file import read_pem
from lbproc.config.place import Surroundings
from lbproc.config.wording import dotted
from tests.certificates import Authority


def config(**tables: Any) -> Config:
    document: dict[str, Any] = {
        "listeners": {"web": {"bind": ["127.0.0.1:8080"], "pool": "web"}},
        "pools": {"web": {"backends": ["10.0.0.1:8000"]}},
    }
    return Config.model_validate(document | tables)


def changes(old: Config, new: Config) -> list[str]:
    return [str(change) for change in diff(old, new)]


def web(**keys: Any) -> Config:
    return config(listeners={"web": {"bind": ["127.0.0.1:8080"], "pool": "web", **keys}})


def pool(*backends: Any, **keys: Any) -> Config:
    return config(pools={"web": {"backends": list(backends), **keys}})


def certified(base: Path, *certificates: dict[str, Any], **keys: Any) -> Config:
    tls = {"certificates": list(certificates), **keys}
    listeners = {"web": {"bind": ["127.0.0.1:8080"], "pool": "web", "tls": tls}}
    document = {"listeners": listeners, "pools": {"web": {"backends": ["10.0.0.1:8000"]}}}
    return Config.model_validate(document, context=Surroundings(base, read_pem=read_pem))


def test_of_certificates_it_is_said_for_whom_and_until_when_and_of_keys_nothing(tmp_path: Path) -> None:
    authority = Authority()
    names = ("a.com", "b.com", "c.com", "d.com")
    pair = authority.issue("a.com")
    pair.write(tmp_path, "a")
    authority.write(tmp_path)
    authority.issue(*names, kind="RSA").write(tmp_path, "b")
    a, b = ({"cert": f"{name}.pem", "key": f"{name}.key"} for name in "ab")
    old = certified(tmp_path, a, b)
    key = "listeners.web.tls.certificates"
    assert changes(old, certified(tmp_path, b, a)) == [f"{key}: another order"]
    assert changes(old, certified(tmp_path, a)) == [f"{key}: removed {tmp_path}/b.pem"]
    assert changes(old, certified(tmp_path, a, b | {"hosts": "b.com"})) == [f"{key}[1].hosts: added b.com"]
    end = authority.issue(*names).certificate.not_valid_after_utc.date()
    assert changes(certified(tmp_path, a), old) == [
        f"{key}: added {tmp_path}/b.pem: a.com, b.com, c.com and 1 more, until {end}"
    ]
    assert changes(old, certified(tmp_path, a, b, client_ca="ca.pem")) == [
        f"listeners.web.tls.client_ca: none -> {tmp_path}/ca.pem"
    ]
    asking = certified(tmp_path, a, b, client_ca="ca.pem")
    twice = certified(tmp_path, a | {"hosts": "x"}, a | {"hosts": "y"})
    new = authority.issue("127.0.0.1", days=10)
    new.write(tmp_path, "a")
    Authority().write(tmp_path)
    end = new.certificate.not_valid_after_utc.date()
    replaced = [
        f"{key}[0].cert: certificate replaced: 127.0.0.1, until {end}",
        f"{key}[0].key: another key in {tmp_path}/a.key",
    ]
    assert changes(old, certified(tmp_path, a, b)) == replaced
    other_ca = f"listeners.web.tls.client_ca: other content of {tmp_path}/ca.pem"
    assert changes(asking, certified(tmp_path, a, b, client_ca="ca.pem")) == [*replaced, other_ca]
    again = certified(tmp_path, a | {"hosts": "x"}, a | {"hosts": "y"})
    assert changes(twice, again) == [*replaced, *(line.replace("[0]", "[1]") for line in replaced)]
    text = "\n".join(changes(asking, again))
    assert "PRIVATE" not in text
    assert "BEGIN" not in text


def test_limits_come_and_go() -> None:
    limited = config(limits={"x": {"new_connections": "5/second"}})
    assert changes(config(), limited) == ["limits.x: added"]
    other = config(limits={"x": {"new_connections": "5/minute"}})
    assert changes(limited, other)[0] == "limits.x.new_connections: 5/second -> 5/minute"


def test_an_address_of_udp_is_another_one_than_that_of_tcp() -> None:
    tcp, udp = web(protocol="tcp"), web(protocol="udp")
    assert addresses(tcp).keys().isdisjoint(addresses(udp))
    assert list(addresses(tcp).values()) == list(addresses(udp).values())


def test_equal_configurations_differ_in_nothing() -> None:
    assert diff(config(), config()) == ()


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        (config(), config(log={"level": "debug"}), ["log.level: info -> debug"]),
        (config(), config(log={"access": "off"}), ["log.access: stdout -> off"]),
        (config(runtime={"workers": 2}), config(), ["runtime.workers: 2 -> auto"]),
        (config(), config(runtime={"drain_timeout": "90s"}), ["runtime.drain_timeout: 10m -> 90s"]),
        (web(), web(max_body_size="1MiB"), ["listeners.web.max_body_size: 1GiB -> 1MiB"]),
        (web(), web(timeouts={"idle": "5s"}), ["listeners.web.timeouts.idle: 75s -> 5s"]),
        (web(), web(pool=None), ["listeners.web.pool: web -> none"]),
        (
            web(bind=["127.0.0.1:8080", "127.0.0.1:8081"]),
            web(bind=["127.0.0.1:8080", "unix:/run/a b.sock"]),
            ["listeners.web.bind: removed 127.0.0.1:8081", 'listeners.web.bind: added "unix:/run/a b.sock"'],
        ),
        (
            web(bind=["127.0.0.1:8080", "127.0.0.1:8081"]),
            web(bind=["127.0.0.1:8081", "127.0.0.1:8080"]),
            ["listeners.web.bind: another order"],
        ),
        (
            web(),
            config(listeners={"api": {"bind": ["127.0.0.1:1", "127.0.0.1:2"], "pool": "web"}}),
            ["listeners.web: removed", "listeners.api: added, 127.0.0.1:1, 127.0.0.1:2"],
        ),
        (
            pool("10.0.0.1:8000"),
            config(pools={"web": {"backends": ["10.0.0.1:8000"]}, "x": {"backends": ["a:1", "b:1"]}}),
            ["pools.x: added, 2 backends"],
        ),
        (
            pool("10.0.0.1:8000", {"address": "10.0.0.2:8000", "name": "b"}),
            pool("10.0.0.1:8000", "10.0.0.3:8000"),
            ["pools.web.backends: removed b (10.0.0.2:8000)", "pools.web.backends: added 10.0.0.3:8000"],
        ),
        (
            pool({"address": "10.0.0.1:8000", "name": "a"}),
            pool({"address": "10.0.0.2:8000", "name": "a", "backup": True, "max_connections": 5}),
            [
                "pools.web.backends.a.address: 10.0.0.1:8000 -> 10.0.0.2:8000",
                "pools.web.backends.a.max_connections: none -> 5",
                "pools.web.backends.a.backup: false -> true",
            ],
        ),
        (
            pool("a:1", {"address": "b:1", "weight": 2}, "c:1"),
            pool("b:1", "a:1", "d:1"),
            [
                "pools.web.backends: removed c:1",
                "pools.web.backends: added d:1",
                'pools.web.backends."b:1".weight: 2 -> 1',
                "pools.web.backends: another order",
            ],
        ),
        (pool("a:1"), pool("a:1", policy="ip_hash"), ["pools.web.policy: least_connections -> ip_hash"]),
    ],
)
def test_each_change_is_one_line(old: Config, new: Config, lines: list[str]) -> None:
    assert changes(old, new) == lines
    assert why_not(diff(old, new)) == ""


def test_routes_are_known_by_their_names() -> None:
    old = web(routes=[{"name": "a", "match": {"host": "a.test"}, "pool": "web"}, {"pool": "web"}])
    new = web(routes=[{"name": "a", "match": {"host": ["a.test", "b.test"]}, "pool": "web"}, {"pool": "x"}])
    assert changes(old, new) == [
        "listeners.web.routes.a.match.host: added b.test",
        "listeners.web.routes.1.pool: web -> x",
    ]


def test_secrets_are_never_shown() -> None:
    old = config(admin={"bind": "127.0.0.1:9900", "token": "swordfish-1"})
    new = config(admin={"bind": "127.0.0.1:9900", "token": "swordfish-2"})
    none = config(admin={"bind": "127.0.0.1:9900"})
    assert changes(old, new) == ["admin.token: another secret"]
    assert changes(none, new) == ["admin.token: none -> ***"]
    assert changes(new, none) == ["admin.token: *** -> none"]


def checked(**health: Any) -> Config:
    return pool("10.0.0.1:8000", health=health)


def test_what_checks_send_is_never_shown() -> None:
    old = checked(headers={"Authorization": "Bearer one", "X-Gone": "two", "X-Same": "three"})
    new = checked(headers={"Authorization": "Bearer four", "X-Same": "three", "X-New": "five"})
    assert changes(old, new) == [
        "pools.web.health.headers.X-Gone: removed",
        "pools.web.health.headers.X-New: added",
        "pools.web.health.headers.Authorization: another value",
    ]
    assert changes(checked(), checked(headers={"X-New": "five"})) == ["pools.web.health.headers.X-New: added"]
    sends = [checked(check="tcp", send=send) if send else checked(check="tcp") for send in (None, "a", "b")]
    assert [changes(before, after) for before, after in pairwise([*sends, sends[0]])] == [
        ["pools.web.health.send: added"],
        ["pools.web.health.send: another value"],
        ["pools.web.health.send: removed"],
    ]


def test_where_a_secret_comes_from_is_shown() -> None:
    around = Surroundings(environ={"TOKEN": "swordfish"})
    document = config(admin={"bind": "127.0.0.1:9900"}).model_dump(exclude_none=True)
    document["admin"]["token"] = {"env": "TOKEN"}
    document["listeners"]["web"].pop("routes")
    new = Config.model_validate(document, context=around)
    assert changes(config(admin={"bind": "127.0.0.1:9900"}), new) == ["admin.token: none -> { env = TOKEN }"]


def test_of_a_file_that_says_something_else_the_path_is_shown() -> None:
    def checked(pem: bytes) -> Config:
        trusting = config(pools={"web": {"backends": ["a:1"], "health": {"check": "http", "tls": {}}}})
        web = trusting.pools["web"]
        assert web.health is not None
        assert web.health.tls is not None
        tls = web.health.tls.model_copy(update={"ca": PemFile("tls/ca.pem", pem)})
        health = web.health.model_copy(update={"tls": tls})
        return trusting.model_copy(update={"pools": {"web": web.model_copy(update={"health": health})}})

    assert changes(checked(b"one"), checked(b"other")) == [
        "pools.web.health.tls.ca: other content of tls/ca.pem"
    ]


def test_a_table_that_comes_or_goes_is_one_line() -> None:
    checked = pool("a:1", health={"check": "tcp"})
    assert changes(pool("a:1"), checked) == ["pools.web.health: added"]
    assert changes(checked, pool("a:1")) == ["pools.web.health: removed"]


def test_a_long_list_is_cut() -> None:
    many = [f"127.0.0.1:{port}" for port in range(1000, 1100)]
    old, new = config(), config(listeners={"web": {"bind": ["127.0.0.1:8080"]}, "x": {"bind": many}})
    assert changes(old, new)[1].startswith("listeners.x: added, 127.0.0.1:1000, ")
    assert changes(old, new)[1].endswith(", 127.0.0.1:1059, ...")


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        (config(), config(runtime={"control_socket": "/run/x.sock"}), "runtime.control_socket"),
        (config(), config(runtime={"user": "nobody"}), "runtime.user"),
        (config(), config(runtime={"max_backends": 5}), "runtime.max_backends"),
        (config(), config(runtime={"max_columns": 9}), "runtime.max_columns"),
        (config(), config(runtime={"max_keys": 2048}), "runtime.max_keys"),
        (config(), config(admin={"bind": "127.0.0.1:9900"}), "admin"),
        (config(admin={"bind": "127.0.0.1:9900"}), config(), "admin"),
        (config(admin={"bind": "127.0.0.1:9900"}), config(admin={"bind": "127.0.0.1:9901"}), "admin.bind"),
    ],
)
def test_what_only_a_restart_changes_is_named(old: Config, new: Config, key: str) -> None:
    found = diff(old, new)
    assert why_not(found).startswith(f"{key}: ")
    assert "cannot change while lbproc runs; leave it as it is, or stop lbproc" in why_not(found)


def test_every_fixed_key_is_a_key_of_the_model() -> None:
    for key in FIXED:
        fields = Config.model_fields
        for step in key:
            assert step in fields, dotted(key)
            kind = fields[str(step)].annotation
            tables = [one for one in (kind, *get_args(kind)) if hasattr(one, "model_fields")]
            fields = tables[0].model_fields if tables else {}


def test_control_characters_do_not_reach_a_terminal() -> None:
    assert str(Change(("a\x1b",), "x")) == '"a\\u001B": x'
    found = diff(pool({"address": "a:1", "name": "a"}), pool({"address": "a:1", "name": "b"}))
    assert [change.what for change in found] == ["removed a (a:1)", "added b (a:1)"]


def test_an_address_is_the_same_in_another_listener_unless_the_kernel_chose_its_port() -> None:
    old = config(listeners={"a": {"bind": ["127.0.0.1:1", "127.0.0.1:0", "127.0.0.1:0"]}})
    new = config(listeners={"b": {"bind": ["127.0.0.1:1", "127.0.0.1:0"]}, "a": {"bind": ["127.0.0.1:0"]}})
    assert list(addresses(old)) == [
        ("", "127.0.0.1:1", 0),
        ("a", "127.0.0.1:0", 0),
        ("a", "127.0.0.1:0", 1),
    ]
    assert set(addresses(old)) & set(addresses(new)) == {("", "127.0.0.1:1", 0), ("a", "127.0.0.1:0", 0)}
    assert addresses(new)["", "127.0.0.1:1", 0][0] == "b"
