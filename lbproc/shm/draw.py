"""Draws the layout of the shared table as Markdown: ``python -m lbproc.shm.draw > docs/shm-layout.md``.

Owns the form of docs/shm-layout.md. Places and names in it come from ``layout`` and ``cells``; a test checks
that the file is current.
"""

from __future__ import annotations

import sys
from enum import IntEnum

from lbproc.shm.cells import BackendCounter, ProcessState, Refusal, Role, WorkerCounter
from lbproc.shm.layout import MAGIC, VERSION, WORD_BYTES, Capacities, Field, Layout, Placed
from lbproc.types import Admin, Health, Liveness

_OPENING = """\
# The shared table

Made by `python -m lbproc.shm.draw` from `lbproc/shm/layout.py`; do not edit.

Layout version {version}, magic `{magic:#018x}`, native byte order. One sealed memory file, mapped by every
process; untouched pages cost nothing. Every field is made of 64-bit words. Sizes are those of the default
capacities: {capacities}.

- *supervisor*, *controller*, *owner*: a cell that only this process writes. The owner of a column is the
  process that has it.
- *shared*: changed by several processes, with the atomics only.
- *each column its word*: a run with one word for each column, written by that column only.

| section | blocks | block, bytes | starts at byte | bytes in all |
|---|---:|---:|---:|---:|
"""

_WORDS_OF_MANY_PARTS = """\
## Words of many parts

```
counted word (in_flight, kept, concurrency, open)
 63                            32 31         24 23                      0
+--------------------------------+-------------+-------------------------+
|            sequence            |   column    |          count          |
+--------------------------------+-------------+-------------------------+
  sequence and column name the operation that wrote the word last

intent
 63                            32 31 30 29   22 21                      0
+--------------------------------+-----+-------+-------------------------+
|            sequence            |kind | owner |          entry          |
+--------------------------------+-----+-------+-------------------------+
  kind 0: nothing is under way, 1: take, 2: release; owner: the column whose entry it is

note
 63                         33 32 31                                    0
+-----------------------------+--+---------------------------------------+
|              0              |1 |               sequence                |
+-----------------------------+--+---------------------------------------+

ledger entry
 63                                          24 23                      0
+----------------------------------------------+-------------------------+
|                  word index                  |         amount          |
+----------------------------------------------+-------------------------+

arrival of a key
 63 62 61                       40 39        32 31                      0
+--+--+---------------------------+------------+-------------------------+
|c |p |             0             |   column   |        sequence         |
+--+--+---------------------------+------------+-------------------------+
  c: claimed; c and p: proposed; neither: the word is a time in ns

place of a flow, unless it is claimed as a key is
 63 62 61                                               17 16            0
+-----+---------------------------------------------------+--------------+
|  0  |                   until when, ms                  |   row + 1    |
+-----+---------------------------------------------------+--------------+

claim
 63                            32 31 30                                 0
+--------------------------------+--+------------------------------------+
|            sequence            |f |              cell + 1              |
+--------------------------------+--+------------------------------------+
  f: the cell is one of flows
```
"""


def draw() -> str:
    """The whole page."""
    capacities = Capacities()
    layout = Layout(capacities)
    sections = (
        *(layout.header, layout.rows, layout.pools, layout.columns, layout.keys, layout.membership),
        *(layout.slots, layout.listeners, layout.flows),
    )
    numbers = ", ".join(f"{getattr(capacities, name):,} {name}" for name in Capacities.__slots__)
    parts = [_OPENING.format(version=VERSION, magic=MAGIC, capacities=numbers.replace("_", " "))]
    parts += [_summary(section) for section in sections]
    parts.append(f"| all | | | | {layout.size_bytes:,} |\n\n")
    parts += [_section(section, capacities) for section in sections]
    parts.append(_WORDS_OF_MANY_PARTS)
    parts += ["\n## Numbers with a meaning\n", "\nAn index or value, and its name.\n\n"]
    parts += [
        _meaning(one)
        for one in (Health, Liveness, Admin, Role, ProcessState, WorkerCounter, BackendCounter, Refusal)
    ]
    return "".join(parts)


def _summary(placed: Placed) -> str:
    block, whole = placed.stride * WORD_BYTES, (placed.end - placed.base) * WORD_BYTES
    start = f"{placed.base * WORD_BYTES:#x}"
    return f"| {placed.section.name} | {placed.blocks:,} | {block:,} | {start} | {whole:,} |\n"


def _section(placed: Placed, capacities: Capacities) -> str:
    section = placed.section
    each = f", one block for each of `{section.per}`" if section.per else ""
    lines = [
        f"## {section.name}\n\n",
        f"{section.meaning[0].upper()}{section.meaning[1:]}{each}.\n\n",
        "| byte in block | field | words | written by | meaning |\n|---:|---|---:|---|---|\n",
    ]
    lines += [_field(field, placed, capacities) for field in section.fields]
    return "".join([*lines, "\n"])


def _field(field: Field, placed: Placed, capacities: Capacities) -> str:
    offset = placed.offsets[field.name] * WORD_BYTES
    return f"| {offset} | {field.name} | {field.length(capacities)} | {field.writer} | {field.meaning} |\n"


def _meaning(enum: type[IntEnum]) -> str:
    return f"- `{enum.__name__}`: {', '.join(f'{member.value} {member.name}' for member in enum)}\n"


if __name__ == "__main__":
    sys.stdout.write(draw())
