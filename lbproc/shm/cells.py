"""What the numbers in single cells mean: roles and states of processes, and the counters they keep.

Owns the meaning and order of these numbers, which are part of the layout: a new one goes to the end, and the
layout's version changes when the meaning of an old one does. Does not own where the cells are (``layout``).
"""

from __future__ import annotations

from enum import IntEnum


class Role(IntEnum):
    """Whose column it is. A column that is FREE has been repaired and can be handed out."""

    FREE = 0
    SUPERVISOR = 1
    WORKER = 2
    CONTROLLER = 3


class ProcessState(IntEnum):
    """How far a process is, as it says itself."""

    STARTING = 0
    READY = 1
    DRAINING = 2
    STOPPED = 3


class WorkerCounter(IntEnum):
    """Counters of a process. CONNECTIONS and TUNNELS are gauges: they end with their process.

    A session of datagrams counts as a connection.
    """

    CONNECTIONS = 0
    TUNNELS = 1
    ACCEPTED = 2
    REQUESTS = 3
    RESPONSES_1XX = 4
    RESPONSES_2XX = 5
    RESPONSES_3XX = 6
    RESPONSES_4XX = 7
    RESPONSES_5XX = 8
    REJECTED = 9
    CLIENT_GONE = 10
    BYTES_IN = 11
    BYTES_OUT = 12
    LOG_DROPPED = 13
    ACCEPT_PAUSES = 14
    DEFECTS = 15
    HANDED_OVER = 16
    TLS_HANDSHAKES = 17
    TLS_RESUMED = 18
    TLS_FAILED = 19
    DATAGRAMS_IN = 20
    DATAGRAMS_OUT = 21
    DATAGRAMS_REFUSED = 22
    DATAGRAMS_LOST = 23


GAUGES = (WorkerCounter.CONNECTIONS, WorkerCounter.TUNNELS)


class BackendCounter(IntEnum):
    """Counters of one process about one backend. RESPONSE_NS sums the times to the response head."""

    REQUESTS = 0
    FAILURES = 1
    CONNECT_FAILURES = 2
    RESPONSES_1XX = 3
    RESPONSES_2XX = 4
    RESPONSES_3XX = 5
    RESPONSES_4XX = 6
    RESPONSES_5XX = 7
    BYTES_IN = 8
    BYTES_OUT = 9
    RESPONSE_NS = 10
    CONNECTS = 11
    REUSES = 12
    REDISPATCHES = 13
    RETRIES = 14
    RETRIES_DENIED = 15
    EJECTIONS = 16


class Refusal(IntEnum):
    """Why a connection was not let in. ADMITTED is none: a limit could not be counted, and let it in."""

    MAX_CONNECTIONS = 0
    CONNECTIONS = 1
    NEW_CONNECTIONS = 2
    KEYS_FULL = 3
    LEDGER_FULL = 4
    ADMITTED = 5
