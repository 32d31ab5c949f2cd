"""Session tickets that every worker accepts: where their keys come from, and who sets them when.

Owns the root in the process that makes it, the verdict on whether sharing works here, which all processes
see, and in each worker the contexts that are to be given keys. What the keys are is
`lbproc.core.tls.ticket_keys`'; how OpenSSL is given them, `lbproc.net.tls.openssl`'.

The verdict is one byte of memory shared with all processes forked later: 0 until the proof is there. Whoever
finds 0 leaves OpenSSL its own keys, one for each context and worker, which is always safe: sessions are then
resumed by the worker that began them, and by no other.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import resource
import secrets
import select
import signal
import ssl
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn

from lbproc.core.tls.ticket_keys import ROOT_SIZE, TicketRoot, epoch_at
from lbproc.net.tls.openssl import is_layout_known, set_ticket_keys, store_no_sessions
from lbproc.net.tls.proof import can_share_tickets

if TYPE_CHECKING:
    from lbproc.types import Seconds

Prover = Callable[[bytes, bytes], bool]
"""Says whether keys can be shared, by a certificate and its key; may raise, hang or crash."""

_UNKNOWN: Final = 0
_WORKS: Final = 1
_FAILS: Final = 2

_PATIENCE: Final[Seconds] = 5.0
"""For the proof, which takes some hundredths of a second."""


class SharedTickets:
    """What the supervisor has, and its children inherit: the root, and whether keys can be shared.

    Args:
        now: an instant of the clock that all processes share.

    Attributes:
        root: what the keys of those follow from that are forked next.
        is_told: somebody was told that keys cannot be shared.
    """

    __slots__ = ("_verdict", "is_told", "root")

    def __init__(self, now: Seconds) -> None:
        self.root = TicketRoot(epoch_at(now), secrets.token_bytes(ROOT_SIZE))
        self.is_told = False
        self._verdict = mmap.mmap(-1, 1)
        is_layout_known()  # finds the library now, while there is the right to read any file

    @property
    def is_proven(self) -> bool:
        """Whether the proof was tried, whatever came of it."""
        return self._verdict[0] != _UNKNOWN

    @property
    def works(self) -> bool:
        """Whether keys can be shared."""
        return self._verdict[0] == _WORKS

    def advance(self, now: Seconds) -> None:
        """Goes on to the root of this instant: those forked from now on know none of before."""
        self.root = self.root.at(epoch_at(now))

    def prove(self, chain: bytes, key: bytes, prover: Prover = can_share_tickets) -> bool:
        """Finds out, once, whether keys can be shared, in a process of its own, which may crash.

        Waits for it, for a bounded time. Only call it while this process has one thread.

        Args:
            chain: a server's certificate, in PEM form.
            key: its private key.
            prover: what is run there.
        """
        if not self.is_proven:
            self._verdict[0] = _FAILS
            if is_layout_known():
                self._prove_aside(chain, key, prover)
        return self.works

    def _prove_aside(self, chain: bytes, key: bytes, prover: Prover) -> None:
        # The signals of this process are none of the other one's; it keeps them blocked as long as it lives.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                self._live(chain, key, prover)
        except OSError:
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:  # no descriptor is left: nobody can be waited for with a limit
            os.kill(pid, signal.SIGKILL)
        else:
            if not select.select([descriptor], [], [], _PATIENCE)[0]:
                os.kill(pid, signal.SIGKILL)
            os.close(descriptor)
        os.waitpid(pid, 0)

    def _live(self, chain: bytes, key: bytes, prover: Prover) -> NoReturn:
        """In the new process, which ends here. A crash there is an answer, and nothing to report."""
        try:
            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if prover(chain, key):
                self._verdict[0] = _WORKS
        except BaseException:
            self._verdict[0] = _FAILS
        finally:
            os._exit(0)


class TicketKeys:
    """Gives the contexts of one process their keys, and new ones when the epoch changes.

    Contexts may be enrolled in a thread; a context that nobody uses any more is forgotten.

    Args:
        shared: what the supervisor has given.
    """

    __slots__ = ("_domains", "_lock", "_root", "_shared")

    def __init__(self, shared: SharedTickets) -> None:
        self._shared = shared
        self._root = shared.root
        self._domains: weakref.WeakKeyDictionary[ssl.SSLContext, str] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def enroll(self, context: ssl.SSLContext, domain: str) -> None:
        """Gives a server's context the key of a domain, now and at every change.

        Does nothing where keys cannot be shared.
        """
        if not self._shared.works:
            return
        with self._lock:
            store_no_sessions(context)
            set_ticket_keys(context, self._root.key(domain))
            self._domains[context] = domain

    def look(self, now: Seconds) -> None:
        """Goes on to the epoch of this instant, if it is another one. Sessions of before begin anew."""
        epoch = epoch_at(now)
        if epoch <= self._root.epoch:
            return
        with self._lock:
            self._root = self._root.at(epoch)
            for context, domain in self._domains.items():
                set_ticket_keys(context, self._root.key(domain))
