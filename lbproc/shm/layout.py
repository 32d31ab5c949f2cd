"""Where everything is in the shared table: sections, fields and their writers, as data.

Owns every offset, the magic number and the version. Nothing else in lbproc computes a place in the table; the
drawing in docs/shm-layout.md is made from here (``python -m lbproc.shm.draw``).

Invariants:
- All is measured in 64-bit words. A section is a number of equal blocks, one for each of something.
- A field says who writes it. *Single-writer* fields are plain cells, summed by readers. *Shared* fields are
  changed with the atomics only.
- Words that many processes change all the time have 128 bytes to themselves (two cache lines, which are
  fetched together).
- Zero means "nothing here" in every field, because untouched pages read as zero.
- A change of meaning or place changes ``VERSION``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from lbproc.types import Column, Row, Slot

MAGIC = int.from_bytes(b"lbproc\x00\x01", "little")
VERSION = 3

WORD_BYTES = 8
PAGE_WORDS = 512
LINES = 16
"""Words that are fetched together: two cache lines."""

COUNT_BITS = 24
UNLIMITED = (1 << COUNT_BITS) - 1
"""No count can be higher: taking with ``at_most=UNLIMITED`` is refused only when the count would overflow."""

COLUMNS_LIMIT = 256
"""A tag names its column in 8 bits."""

LEDGER_LIMIT = 1 << 22
"""An intent names its entry in 22 bits."""

CELLS_LIMIT = 1 << 30
"""A claim names its cell, of one of two sections, in 32 bits, and 0 there is none."""

FLOW_ROW_BITS = 17
"""Of a flow's place: its backend's row + 1. The rest is a time in ms."""

NO_COLUMN = Column(0)
"""Belongs to nobody, so that a tag of 0 names no operation."""

SUPERVISOR_COLUMN = Column(1)

Writer = Literal["supervisor", "owner", "controller", "each column its word", "shared"]


@dataclass(frozen=True, slots=True)
class Capacities:
    """How much the table has room for. Untouched pages cost nothing, so be generous.

    Attributes:
        columns: processes at one time, and two: number 0 is nobody's, number 1 the supervisor's. At most 256.
        backends: rows, one for each (pool, address).
        pools: pools that ever had a name.
        keys: cells for the keys of limits; a power of two.
        ledger: entries of each column, one for each thing that a process holds at one time.
        membership_bytes: size of the published membership.
        listeners: listeners that there are at one time, with those that went and have connections left.
        flows: cells for UDP flows; a power of two.
    """

    columns: int = 256
    backends: int = 4096
    pools: int = 1024
    keys: int = 1_048_576
    ledger: int = 131_072
    membership_bytes: int = 4 << 20
    listeners: int = 1024
    flows: int = 1_048_576

    def __post_init__(self) -> None:
        highest = {
            "columns": COLUMNS_LIMIT,
            "ledger": LEDGER_LIMIT,
            "backends": (1 << FLOW_ROW_BITS) - 1,
            "keys": CELLS_LIMIT,
            "flows": CELLS_LIMIT,
        }
        for field in fields(self):
            lowest = 3 if field.name == "columns" else 1
            value = getattr(self, field.name)
            limit = highest.get(field.name, 1 << 31)
            if not lowest <= value <= limit:
                raise ValueError(f"the table's {field.name} must be {lowest} to {limit}, not {value}")
        for name, cells in {"keys": self.keys, "flows": self.flows}.items():
            if cells & (cells - 1):
                raise ValueError(f"the table's {name} must be a power of two, not {cells}")

    @property
    def membership_words(self) -> int:
        """Words of one buffer of the membership."""
        return -(-self.membership_bytes // WORD_BYTES)

    @property
    def membership_buffers(self) -> int:
        """One to read while the other is written."""
        return 2


@dataclass(frozen=True, slots=True)
class Field:
    """A run of words in every block of a section.

    Attributes:
        writer: who may change it.
        words: its length, times the capacity named by ``per`` if there is one.
        align: it starts at a multiple of so many words.
    """

    name: str
    writer: Writer
    meaning: str
    words: int = 1
    per: str = ""
    align: int = 1

    def length(self, capacities: Capacities) -> int:
        """Words that this field takes in a table of these capacities."""
        return self.words * (int(getattr(capacities, self.per)) if self.per else 1)


@dataclass(frozen=True, slots=True)
class Section:
    """Equal blocks, as many as the capacity named by ``per`` (one if there is none); starts on a page."""

    name: str
    meaning: str
    fields: tuple[Field, ...]
    per: str = ""

    def blocks(self, capacities: Capacities) -> int:
        """How many blocks a table of these capacities has."""
        return int(getattr(capacities, self.per)) if self.per else 1


HEADER = Section(
    "header",
    "what the table is, and the words that every process looks at all the time",
    (
        Field(
            "magic",
            "supervisor",
            "the bytes of `lbproc`, 0, 1; written last",
        ),
        Field("version", "supervisor", "of this layout"),
        Field("size_bytes", "supervisor", "of the whole segment, which is sealed"),
        Field(
            "capacities", "supervisor", "as the table was made with, in the order of `Capacities`", words=8
        ),
        Field("created_at", "supervisor", "ns, monotonic"),
        Field("generation", "shared", "of the configuration in force", align=LINES),
        Field(
            "membership_epoch",
            "shared",
            "publications so far; its last bit names the newest buffer",
        ),
        Field(
            "status_epoch", "shared", "changes of any health, admin or ejected cell, and of the membership"
        ),
        Field("membership_length", "supervisor", "bytes in each of the two buffers", words=2, align=LINES),
        Field("abandoned", "supervisor", "the newest generation whose preparation has come to nothing"),
    ),
)

ROWS = Section(
    "rows",
    "backends, found by (pool, address); they outlive the configuration that named them",
    (
        Field("in_flight", "shared", "counted word: sequence(32), column(8), count(24)", align=LINES),
        Field(
            "identity",
            "supervisor",
            "hash of pool and address; 0: a row that was never used; 1, 0: one that is free again",
            words=2,
            align=LINES,
        ),
        Field("health", "controller", "`Health`, what active checks think"),
        Field("admin", "supervisor", "`Admin`, what the operator said"),
        Field(
            "ejected",
            "shared",
            "until when it is ejected for real failures: ns, even; 0: it is not; odd: a claim",
        ),
        Field("ejections", "shared", "ejections without a long good time in between"),
        Field("returned_at", "shared", "ns, monotonic, when the last ejection ended; 0: there was none"),
        Field("errors", "shared", "consecutive failures, as all workers saw them"),
        Field("started_at", "shared", "ns, monotonic, when slow start began; 0: never"),
        Field("liveness", "controller", "`Liveness`: whether its process lives"),
        Field("checked_at", "controller", "ns, monotonic, of the last check; 0: none"),
        Field("health_since", "controller", "ns, monotonic, of the last change of health"),
    ),
    per="backends",
)

POOLS = Section(
    "pools",
    "pools by name",
    (
        Field("ticket", "shared", "places given out by round_robin", align=LINES),
        Field("identity", "supervisor", "hash of the name; 0: free", words=2, align=LINES),
        Field(
            "retry_credit",
            "shared",
            "retry budget: thousandths of a retry above a full bucket; below it in two's complement",
            align=LINES,
        ),
        Field("panic", "shared", "1 while too few of its backends are available"),
        Field(
            "kept",
            "shared",
            "counted word: workers that may still pick by what the pool was, once it is gone",
        ),
    ),
    per="pools",
)

COLUMNS = Section(
    "columns",
    "processes; column 0 is nobody's, column 1 the supervisor's",
    (
        Field("intent", "owner", "operation under way: sequence(32), kind(2), owner(8), entry(22)"),
        Field("claim", "owner", "cell being claimed: sequence(32), of flows(1), cell + 1 (31), 0: none"),
        Field("claimed_from", "owner", "the time of a cell that is being retired, while it is; else 0"),
        Field("heartbeat", "owner", "ns, monotonic, of the last turn of its event loop", align=LINES),
        Field("state", "owner", "`ProcessState`"),
        Field("generation", "owner", "of the configuration it follows"),
        Field("membership", "owner", "epoch of the publication it follows; 0: of none yet"),
        Field("ledger_high", "owner", "entries at and above this were never used"),
        Field("role", "supervisor", "`Role`; 0: free", align=LINES),
        Field("slot", "supervisor", "the worker's slot + 1; 0: none"),
        Field("pid", "supervisor", "of its process; 0 before the fork"),
        Field("started_at", "supervisor", "ns, monotonic"),
        Field(
            "counters",
            "owner",
            "by `WorkerCounter`; they go on when the column is reused",
            words=32,
            align=LINES,
        ),
        Field("baseline", "supervisor", "the counters when the present process got the column", words=32),
        Field("notes", "each column its word", "sequence of an operation seen done", words=256),
        Field(
            "ledger",
            "owner",
            "word index(40), amount(24); 0: free",
            per="ledger",
            align=PAGE_WORDS,
        ),
        Field(
            "backend_counters",
            "owner",
            "for each row, by `BackendCounter`; they go on when the column is reused",
            words=24,
            per="backends",
            align=PAGE_WORDS,
        ),
    ),
    per="columns",
)

KEYS = Section(
    "keys",
    "keys of limits, open-addressed",
    (
        Field(
            "arrival",
            "shared",
            "a time(62) in ns, or a claim: column(8), sequence(32)",
            align=8,
        ),
        Field("key", "shared", "keyed hash, 128 bits; 0: none", words=2),
        Field("begins_at", "shared", "the time that the present key begins with"),
        Field("concurrency", "shared", "counted word"),
        Field("interval", "shared", "of the rate limit that the time was made with, ns; 0: of none"),
        Field("burst", "shared", "likewise"),
        Field("generation", "shared", "of the configuration that has these numbers"),
    ),
    per="keys",
)

MEMBERSHIP = Section(
    "membership",
    "two buffers, so that the newest is never the one being written",
    (Field("bytes", "supervisor", "msgpack", per="membership_words"),),
    per="membership_buffers",
)

SLOTS = Section(
    "slots",
    "workers' places among the listening sockets; there are never more than columns",
    (
        Field(
            "waiting",
            "shared",
            "connections in the slot's inbox: given by siblings, not yet taken",
            align=LINES,
        ),
    ),
    per="columns",
)

LISTENERS = Section(
    "listeners",
    "listeners by name; they outlive the configuration that named them while a connection is left",
    (
        Field("open", "shared", "counted word: connections, of UDP listeners sessions", align=LINES),
        Field("identity", "supervisor", "of the name, as that of a row", words=2, align=LINES),
        Field("refused", "shared", "connections by `Refusal`", words=8, align=LINES),
        Field("told_at", "shared", "ns, monotonic, when the log last told of it, by `Refusal`", words=8),
    ),
    per="listeners",
)

FLOWS = Section(
    "flows",
    "UDP flows and their backends, open-addressed as the keys are",
    (
        Field(
            "place",
            "shared",
            "until when in ms(45), row + 1 (17), or a claim: column(8), sequence(32)",
            align=8,
        ),
        Field("key", "shared", "keyed hash of listener and client, 128 bits; 0: none", words=2),
        Field("begins_at", "shared", "the place that the present flow begins with"),
        Field("unused", "shared", "0", words=4),
    ),
    per="flows",
)

SECTIONS = (HEADER, ROWS, POOLS, COLUMNS, KEYS, MEMBERSHIP, SLOTS, LISTENERS, FLOWS)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


@dataclass(frozen=True, slots=True)
class Placed:
    """A section in a table of given capacities: block ``n`` starts at word ``base + n * stride``.

    Attributes:
        offsets: of each field, in words from the start of a block.
    """

    section: Section
    base: int
    stride: int
    blocks: int
    offsets: dict[str, int]

    @property
    def end(self) -> int:
        """The word after the last block."""
        return self.base + self.blocks * self.stride

    def at(self, block: int, field: str) -> int:
        """The word index of the first word of a field in a block.

        Raises:
            IndexError: there is no such block.
        """
        if not 0 <= block < self.blocks:
            raise IndexError(f"{self.section.name} has {self.blocks} blocks, {block} is none of them")
        return self.base + block * self.stride + self.offsets[field]


def _place(section: Section, start: int, capacities: Capacities) -> Placed:
    offsets: dict[str, int] = {}
    offset = 0
    for field in section.fields:
        offsets[field.name] = offset = _round_up(offset, field.align)
        offset += field.length(capacities)
    stride = _round_up(offset, max(field.align for field in section.fields))
    base = _round_up(start, PAGE_WORDS)
    return Placed(section, base, stride, section.blocks(capacities), offsets)


class Layout:
    """All sections of a table of given capacities, one after the other, with shorthands for common places."""

    __slots__ = (
        "capacities",
        "columns",
        "flows",
        "header",
        "keys",
        "listeners",
        "membership",
        "pools",
        "rows",
        "size_bytes",
        "slots",
    )

    def __init__(self, capacities: Capacities) -> None:
        placed: dict[str, Placed] = {}
        end = 0
        for section in SECTIONS:
            placed[section.name] = _place(section, end, capacities)
            end = placed[section.name].end
        self.capacities = capacities
        self.header = placed["header"]
        self.rows = placed["rows"]
        self.pools = placed["pools"]
        self.columns = placed["columns"]
        self.keys = placed["keys"]
        self.membership = placed["membership"]
        self.slots = placed["slots"]
        self.listeners = placed["listeners"]
        self.flows = placed["flows"]
        self.size_bytes = _round_up(end, PAGE_WORDS) * WORD_BYTES

    def in_header(self, field: str) -> int:
        """Word index of a field of the header."""
        return self.header.at(0, field)

    def in_row(self, row: Row, field: str) -> int:
        """Word index of a field of a backend's row."""
        return self.rows.at(row, field)

    def in_column(self, column: Column, field: str) -> int:
        """Word index of a field of a process's column."""
        return self.columns.at(column, field)

    def in_slot(self, slot: Slot, field: str) -> int:
        """Word index of a field of a worker's slot."""
        return self.slots.at(slot, field)

    @property
    def backend_counters(self) -> int:
        """Words that the counters of one row take in a column."""
        return next(field.words for field in COLUMNS.fields if field.name == "backend_counters")

    def geometry(self) -> tuple[int, int, int, int, int, int, int]:
        """What the C extension has to know: columns, base, stride, intent, notes, ledger, entries."""
        columns = self.columns
        return (
            columns.blocks,
            columns.base,
            columns.stride,
            columns.offsets["intent"],
            columns.offsets["notes"],
            columns.offsets["ledger"],
            self.capacities.ledger,
        )
