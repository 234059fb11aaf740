"""Copies of large files onto a disk that leave the page cache, and so training's memory, alone.

A copy through the page cache passes the memory three times as often, and takes twice the processor
time. Where a file system has no direct I/O the copy goes through its cache.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
from pathlib import Path

CHUNK_BYTES = 1 << 22  # a part that stays in the processor's cache between hash and write
BLOCK_BYTES = 4096  # of direct I/O: of memory, of the place in the file, of the length
_DIRECT: int = getattr(os, "O_DIRECT", 0)
_NO_DIRECT_IO = (errno.EINVAL, errno.EOPNOTSUPP)


def copy(source: Path, target: Path) -> str:
    """Writes a new file, through to the disk; gives the SHA-256 of what was read."""
    digest = hashlib.sha256()
    chunk = memoryview(mmap.mmap(-1, CHUNK_BYTES))  # begins at a page, which direct I/O needs
    writing = _create(target)
    try:
        with source.open("rb", buffering=0) as reading:
            while n := reading.readinto(chunk):
                digest.update(chunk[:n])
                _write(writing, chunk[:n])
        os.fsync(writing)
    finally:
        os.close(writing)
    return digest.hexdigest()


def _create(target: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        return os.open(target, flags | _DIRECT, 0o666)
    except OSError as error:
        if error.errno not in _NO_DIRECT_IO:
            raise
    return os.open(target, flags, 0o666)


def _write(writing: int, part: memoryview) -> None:
    """All of it; what is no whole block goes through the page cache, and all that comes after."""
    while part:
        if len(part) % BLOCK_BYTES:
            _end_direct(writing)
        try:
            part = part[os.write(writing, part) :]
        except OSError as error:
            if error.errno not in _NO_DIRECT_IO or not _end_direct(writing):
                raise


def _end_direct(writing: int) -> bool:
    """Whether the file was written to directly until now."""
    flags = fcntl.fcntl(writing, fcntl.F_GETFL)
    if not flags & _DIRECT:
        return False
    fcntl.fcntl(writing, fcntl.F_SETFL, flags & ~_DIRECT)
    return True
