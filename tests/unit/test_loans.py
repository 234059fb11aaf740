"""Memory that a client lends to a receiver of its host: taken for what it is, or not at all."""

from __future__ import annotations

import fcntl
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from penstock.arena import Arena
from penstock.buffers import Buffers
from penstock.wire import ARENA, OFFER
from penstock_server import loans
from penstock_server.loans import LoanError, LoanOver, accept

PLACE = "<u8"

LENDER = """
import sys
import numpy as np
from penstock.arena import Arena
arena = Arena(100_000)
bytes_ = arena.allocate(8_000)
bytes_.view("f8")[:] = np.arange(1000)
print(arena.offer.hex(), arena.offset(bytes_), flush=True)
sys.stdin.read()
"""


def place(at: int) -> bytes:
    return np.array([at], PLACE).tobytes()


def test_what_another_process_wrote_is_read_where_it_says() -> None:
    command = [sys.executable, "-c", LENDER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as lender:
        assert lender.stdout is not None
        offer, at = lender.stdout.readline().split()
        loan = accept(bytes.fromhex(offer))
        assert loan is not None
        found = np.frombuffer(loan.view(place(int(at)), 8000), "f8")
        np.testing.assert_array_equal(found, np.arange(1000))
        lender.kill()
        lender.wait()
    # It is still there for messages that were on their way, and then no more.
    loan.look(100.0, busy=False)
    assert len(loan.view(place(int(at)), 8000)) == 8000
    loan.look(100.0 + loans.GONE_S + 0.1, busy=True)
    assert len(loan.view(place(int(at)), 8000)) == 8000
    loan.look(100.0 + loans.GONE_S + 0.1, busy=False)
    with pytest.raises(LoanOver):
        loan.view(place(int(at)), 8000)


def test_memory_of_a_living_process_is_kept() -> None:
    arena = Arena(1000)
    loan = accept(arena.offer)
    assert loan is not None
    for now in (0.0, 100.0, 200.0):
        loan.look(now, busy=False)
    assert len(loan.view(place(0), 100)) == 100
    arena.close()


@pytest.mark.parametrize(
    ("at", "n_bytes"), [(5_000, 100), (2**64 - 1, 1), (4096 + 1000, 1), (0, 4096 + 1001)]
)
def test_no_place_outside_of_it_can_be_named(at: int, n_bytes: int) -> None:
    arena = Arena(1000)
    loan = accept(arena.offer)
    assert loan is not None
    if at + n_bytes <= 4096 + 1000:
        pytest.fail("This place is inside; the case says nothing.")
    with pytest.raises(LoanError):
        loan.view(place(at), n_bytes)
    arena.close()


def test_a_place_is_eight_bytes() -> None:
    arena = Arena(1000)
    loan = accept(arena.offer)
    assert loan is not None
    for wrong in (b"", bytes(7), bytes(9)):
        with pytest.raises(LoanError):
            loan.view(wrong, 1)
    arena.close()


def test_another_token_or_size_is_not_taken() -> None:
    arena = Arena(1000)
    pid, number, _, size, token = OFFER.unpack(arena.offer)
    for wrong in (
        OFFER.pack(pid, number, 0, size, bytes(32)),
        OFFER.pack(pid, number, 0, size + 1, token),
        OFFER.pack(pid, number, 0, size - 1, token),
        OFFER.pack(pid, 10_000, 0, size, token),
        OFFER.pack(2**40, number, 0, size, token),
        OFFER.pack(2**64 - 1, 2**32 - 1, 0, 2**64 - 1, token),
        arena.offer[:-1],
        b"",
    ):
        assert accept(wrong) is None
    arena.close()
    assert accept(arena.offer) is None


def test_a_file_or_unsealed_memory_is_not_taken(tmp_path: Path) -> None:
    """It could shrink while it is read, which ends the reader with a bus error."""
    token = bytes(range(32))
    unsealed = os.memfd_create(ARENA, os.MFD_ALLOW_SEALING)
    path = tmp_path / f"memfd:{ARENA}"
    path.write_bytes(b"")
    plain = os.open(path, os.O_RDWR)
    for number in (unsealed, plain):
        os.write(number, token + bytes(968))
        assert accept(OFFER.pack(os.getpid(), number, 0, 1000, token)) is None
    fcntl.fcntl(unsealed, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    assert accept(OFFER.pack(os.getpid(), unsealed, 0, 1000, token)) is not None
    os.close(unsealed)
    os.close(plain)


def test_memory_of_huge_pages_is_not_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine has none left, reading a page that its lender took away is a bus error."""
    try:
        huge = os.memfd_create(ARENA, os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)
    except OSError as error:
        pytest.skip(f"There are no huge pages here: {error}.")
    size = os.fstatvfs(huge).f_bsize
    os.ftruncate(huge, size)
    fcntl.fcntl(huge, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    mapped: list[int] = []
    monkeypatch.setattr(mmap, "mmap", lambda file, *_: mapped.append(file) or bytes(32))
    assert accept(OFFER.pack(os.getpid(), huge, 0, size, bytes(32))) is None
    assert not mapped
    os.close(huge)


def test_buffers_take_from_the_arena_until_it_is_full() -> None:
    arena = Arena(10_000)
    buffers = Buffers(arena)
    arrays = [buffers.take((10, 10), np.dtype("f8")) for _ in range(15)]
    offsets = [arena.offset(array) for array in arrays]
    inside = [offset for offset in offsets if offset is not None]
    assert len(inside) == 12  # 832 bytes each, with what aligns them
    assert offsets[12:] == [None] * 3
    assert all(offset % 64 == 0 and offset >= 4096 for offset in inside)
    assert len(set(inside)) == len(inside)
    buffers.give(arrays[3])
    assert arena.offset(buffers.take((10, 10), np.dtype("f8"))) == offsets[3]
    assert arena.offset(arrays[2][:5]) == offsets[2]
    arena.close()


def test_a_process_that_got_the_number_of_a_dead_one_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arena = Arena(1000)
    loan = accept(arena.offer)
    assert loan is not None
    monkeypatch.setattr(loans, "_born", lambda pid: 1)  # it began with the machine
    loan.look(0.0, busy=False)
    loan.look(loans.GONE_S + 0.1, busy=False)
    with pytest.raises(LoanOver):
        loan.view(place(0), 100)
    arena.close()
