"""Accounts and limits: found, raised, or refused in words that help."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable

import pytest

from lbproc.config.model import Config
from lbproc.errors import StartError
from lbproc.supervisor.rights import (
    CONNECTION_DESCRIPTORS,
    MAX_DESCRIPTORS,
    Account,
    become,
    descriptors_needed,
    find_account,
    raise_descriptor_limit,
)

CONFIG = Config.model_validate(
    {
        "listeners": {"web": {"bind": ["127.0.0.1:0", "[::1]:0"], "pool": "web"}},
        "pools": {"web": {"backends": ["127.0.0.1:1"]}},
    }
)


def in_child(act: Callable[[], bool]) -> bool:
    """Whether it holds in a process whose limits and rights are its own."""
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            status = 0 if act() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_without_an_account_nothing_changes() -> None:
    assert find_account(None) is None


def test_the_account_is_looked_up_by_root_alone() -> None:
    account = find_account("nobody")
    assert (account is not None) == (os.geteuid() == 0)


def test_an_account_that_does_not_exist_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(StartError, match="useradd --system no-such-account"):
        find_account("no-such-account")


def test_rights_are_given_up_for_good() -> None:
    account = find_account("nobody") or Account("me", os.getuid(), os.getgid(), ())

    def act() -> bool:
        if os.geteuid() == 0:
            become(account)
        ids = os.getresuid() == (account.uid,) * 3 and os.getresgid() == (account.gid,) * 3
        try:
            os.setuid(0)
        except PermissionError:
            return ids
        return False

    assert in_child(act)


def test_the_need_grows_with_workers_and_addresses() -> None:
    assert descriptors_needed(CONFIG, 1) > CONNECTION_DESCRIPTORS
    assert descriptors_needed(CONFIG, 100) >= descriptors_needed(CONFIG, 1) + 2 * 99


def test_the_limit_is_raised_as_far_as_it_goes() -> None:
    def act() -> bool:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        limit = raise_descriptor_limit(200)
        again = raise_descriptor_limit(200)
        return limit == again == resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, MAX_DESCRIPTORS)

    assert in_child(act)


def test_more_than_the_system_allows_is_taken_where_there_is_the_right_to_it_or_refused() -> None:
    def act() -> bool:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        try:
            return raise_descriptor_limit(300) == 300 == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        except StartError as refused:
            return "LimitNOFILE=300" in str(refused)

    assert in_child(act)


def test_more_than_the_system_allows_is_refused_to_ordinary_users() -> None:
    def act() -> bool:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        if account := find_account("nobody"):
            become(account)
        try:
            raise_descriptor_limit(301)
        except StartError as refused:
            return "ulimit -n 301" in str(refused)
        return False

    assert in_child(act)
