"""Files of certificates are read within bounds, and known again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lbproc.config.pem import LARGEST_PEM
from lbproc.config.pem_file import read_pem, stamp_of


def test_content_mode_and_stamp(tmp_path: Path) -> None:
    file = tmp_path / "a.pem"
    file.write_bytes(b"content")
    file.chmod(0o640)
    found = read_pem(file)
    assert (found.octets, found.mode) == (b"content", 0o640)
    assert found.stamp == stamp_of(str(file))
    assert "content" not in repr(found)


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(ValueError, match="it is no regular file"):
            read_pem(path)
    large = tmp_path / "large"
    large.write_bytes(b"x" * LARGEST_PEM)
    assert len(read_pem(large).octets) == LARGEST_PEM
    with large.open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(ValueError, match="it is larger than 1 MiB"):
        read_pem(large)
    with pytest.raises(FileNotFoundError):
        read_pem(tmp_path / "nothing")


def test_a_stamp_differs_when_a_file_is_written_replaced_or_a_link_is_switched(tmp_path: Path) -> None:
    first, second, link = tmp_path / "1", tmp_path / "2", tmp_path / "link"
    first.write_bytes(b"x")
    second.write_bytes(b"x")
    os.utime(second, ns=(0, first.stat().st_mtime_ns))
    link.symlink_to(first)
    stamps = [stamp_of(str(link))]
    next_link = tmp_path / "next"
    next_link.symlink_to(second)
    next_link.replace(link)
    stamps.append(stamp_of(str(link)))
    os.utime(second, ns=(0, 1))
    stamps.append(stamp_of(str(link)))
    second.unlink()
    stamps.append(stamp_of(str(link)))
    assert len(set(stamps)) == 4
    assert stamps[3] is None
