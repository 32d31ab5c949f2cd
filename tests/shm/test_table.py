from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

import lbproc
from lbproc.errors import StartError
from lbproc.shm.clock import monotonic_ns
from lbproc.shm.layout import MAGIC, VERSION, Capacities
from lbproc.shm.table import Table
from tests.descriptors import open_descriptors, opened_since
from tests.shm.conftest import SMALL


def test_a_new_table_is_empty_but_for_its_header(table: Table) -> None:
    layout = table.layout
    assert table.words.load(layout.in_header("magic")) == MAGIC
    assert table.words.load(layout.in_header("version")) == VERSION
    assert 0 < table.words.load(layout.in_header("created_at")) <= monotonic_ns()
    assert not any(table.cells[layout.in_header("generation") :])
    assert len(table.words) == len(table.cells) == layout.size_bytes // 8


def test_the_default_table_costs_next_to_nothing() -> None:
    table = Table.create()
    assert os.fstat(table.fd).st_blocks * 512 < 64 << 10
    table.close()


def test_the_file_cannot_change_its_size(table: Table) -> None:
    for size in (0, table.layout.size_bytes + 4096):
        with pytest.raises(PermissionError):
            os.ftruncate(table.fd, size)


def test_the_descriptor_is_not_passed_to_programs(table: Table) -> None:
    assert not os.get_inheritable(table.fd)


def test_words_and_cells_are_the_same_memory_in_every_mapping(table: Table) -> None:
    other = Table.attach(os.dup(table.fd))
    table.words.store(100, 7)
    other.cells[101] = 8
    assert (other.words.load(100), table.words.load(101)) == (7, 8)
    assert other.layout.capacities == SMALL
    other.close()


def test_closing_twice_is_closing_once_and_the_mapping_stays(table: Table) -> None:
    table.close()
    table.close()
    assert table.fd == -1
    assert table.words.load(table.layout.in_header("magic")) == MAGIC


def test_bytes_of_any_length_are_written_and_read(table: Table) -> None:
    word = table.layout.membership.base
    for content in (b"", b"1234567", b"12345678", b"123456789"):
        table.write_bytes(word, content)
        assert table.read_bytes(word, len(content)) == content


def test_a_status_is_announced_when_it_changes(table: Table) -> None:
    word, epoch = table.layout.rows.at(0, "health"), table.layout.in_header("status_epoch")
    table.change_status(word, 1)
    table.change_status(word, 1)
    assert (table.words.load(word), table.words.load(epoch)) == (1, 1)


def with_header(field: str, value: int) -> Callable[[], int]:
    def make() -> int:
        table = Table.create(SMALL)
        table.words.store(table.layout.in_header(field), value)
        return table.fd

    return make


def unsealed() -> int:
    table = Table.create(SMALL)
    fd = os.memfd_create("open", os.MFD_ALLOW_SEALING)
    os.write(fd, table.cells.tobytes())
    table.close()
    return fd


def longer() -> int:
    table = Table.create(SMALL)
    fd = os.memfd_create("long", os.MFD_ALLOW_SEALING)
    os.write(fd, table.cells.tobytes() + bytes(4096))
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    table.close()
    return fd


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: os.memfd_create("empty"), "does not start like one"),
        (lambda: os.open("/dev/null", os.O_RDWR), "no shared table"),
        (with_header("magic", 1), "does not start like one"),
        (with_header("version", VERSION + 1), f"has version {VERSION + 1}"),
        (with_header("capacities", 1000), "header is damaged"),
        (with_header("size_bytes", 8), "against its header"),
        (unsealed, "is not sealed"),
        (longer, "against its header"),
    ],
)
def test_what_is_no_table_is_refused(make: Callable[[], int], message: str) -> None:
    fd = make()
    with pytest.raises(StartError, match=message):
        Table.attach(fd)
    os.close(fd)


def test_a_table_that_the_system_refuses_is_a_start_error() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        with pytest.raises(StartError, match="cannot make the shared table"):
            Table.create(SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_table_too_large_to_map_leaves_no_descriptor_behind() -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    descriptors = open_descriptors()
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(StartError, match="max_ values"):
            Table.create(Capacities())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert opened_since(descriptors) == []


def test_nothing_in_lbproc_packs_into_shared_memory() -> None:
    """``struct.pack_into`` lets readers see zeros that were never written; the linter misses its methods."""
    package = Path(lbproc.__file__).parent
    assert not [path for path in package.rglob("*.py") if "pack_into" in path.read_text()]
