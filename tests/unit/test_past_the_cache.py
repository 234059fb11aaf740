"""Large copies onto a disk, directly and where the file system cannot do that."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from penstock_server import past_the_cache

CHUNK, BLOCK = past_the_cache.CHUNK_BYTES, past_the_cache.BLOCK_BYTES
SIZES = (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, CHUNK - 1, CHUNK, CHUNK + BLOCK + 7, 3 * CHUNK)


def check(folder: Path, n: int) -> None:
    content = os.urandom(n)
    source, target = folder / "source", folder / "target"
    source.write_bytes(content)
    target.write_bytes(b"what was there before " * 1000)
    assert past_the_cache.copy(source, target) == hashlib.sha256(content).hexdigest()
    assert target.read_bytes() == content


@pytest.mark.parametrize("n", SIZES)
def test_a_copy_has_every_byte_and_its_digest(tmp_path: Path, n: int) -> None:
    check(tmp_path, n)


@pytest.mark.parametrize("n", SIZES)
def test_a_file_system_that_refuses_direct_writes_is_written_through_its_cache(
    tmp_path: Path, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def refuse(descriptor: int, part: Any) -> int:
        if past_the_cache._end_direct(descriptor):
            flags = os.O_DIRECT
            past_the_cache.fcntl.fcntl(descriptor, past_the_cache.fcntl.F_SETFL, flags)
            raise OSError(errno.EINVAL, "no direct I/O here")
        return write(descriptor, part)

    monkeypatch.setattr(past_the_cache.os, "write", refuse)
    check(tmp_path, n)


def test_a_file_system_that_opens_no_file_for_direct_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refuse(path: Any, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no direct I/O here")
        return opened(path, flags, mode)

    monkeypatch.setattr(past_the_cache.os, "open", refuse)
    check(tmp_path, CHUNK + 5)


def test_writes_that_are_cut_short_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(past_the_cache.os, "write", lambda d, part: write(d, part[: BLOCK * 100]))
    check(tmp_path, 2 * CHUNK + 9)


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, part: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "source").write_bytes(b"1")
    monkeypatch.setattr(past_the_cache.os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        past_the_cache.copy(tmp_path / "source", tmp_path / "target")
