"""What the processes may do: the account of the children, and how many descriptors a process may have."""

from __future__ import annotations

import os
import pwd
import resource
from dataclasses import dataclass

from lbproc.config.model import Config
from lbproc.errors import StartError

CONNECTION_DESCRIPTORS = 1024
"""What a worker needs at least for clients and backends. More is always taken when the system allows it."""

MAX_DESCRIPTORS = 1_048_576
"""More is not asked for: the kernel keeps a table of the size that is used, and no worker comes near."""

_OTHER_DESCRIPTORS = 64  # standard streams, logs, epoll, table, modules being imported, control connections


@dataclass(frozen=True, slots=True)
class Account:
    """Whom the children run as.

    Args:
        name: for messages.
        uid: user id.
        gid: of the account's own group.
        groups: all groups of the account.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def find_account(name: str | None) -> Account | None:
    """The account that children change to; None when this process is not root or no account is configured.

    Raises:
        StartError: there is no such account.
    """
    if name is None or os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise StartError(
            f"[runtime] user: there is no account {name}; create it (useradd --system {name}) or name another"
        ) from None
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, tuple(groups))


def become(account: Account) -> None:
    """Gives up root's rights for those of the account, for good: real, effective and saved ids."""
    os.setgroups(account.groups)
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)


def descriptors_needed(config: Config, workers: int) -> int:
    """How many descriptors the neediest process may have open at the least.

    The supervisor has a socket for each slot of each address, both ends of each inbox, and a channel to each
    child; a worker has its own sockets, those of slots that it adopts, an end of each inbox, and its
    connections.
    """
    addresses = sum(len(listener.bind) for listener in config.listeners.values())
    sockets = addresses * workers
    return _OTHER_DESCRIPTORS + sockets + 2 * workers + max(4 * workers, CONNECTION_DESCRIPTORS)


def raise_descriptor_limit(needed: int) -> int:
    """Raises RLIMIT_NOFILE of this process and its children as far as it goes; returns the limit in force.

    Raises:
        StartError: the system allows less than what is needed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = MAX_DESCRIPTORS
    wanted = min(hard, MAX_DESCRIPTORS)
    if hard < needed:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, needed))  # root may
        except (ValueError, OSError):
            raise StartError(
                f"this configuration needs {needed} open files in one process and the system allows {hard}; "
                f"raise the limit (LimitNOFILE={needed} for systemd, ulimit -n {needed} in a shell) "
                "or use fewer workers or addresses"
            ) from None
        return needed
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        return wanted
    return soft
