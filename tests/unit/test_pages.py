"""Memory in large pages: whose bytes are whose, what the system is asked for, when it is gone."""

from __future__ import annotations

import gc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_maps import large_pages_are_wanted, mapping

from penstock import pages as module
from penstock.arena import address
from penstock.buffers import Buffers
from penstock.pages import LEAST_BYTES, Pages


def allocate(pages: Pages, n_bytes: int) -> np.ndarray:
    found = pages.allocate(n_bytes)
    assert found is not None
    return found


@given(st.lists(st.integers(LEAST_BYTES, 1 << 20), max_size=60))
def test_nobody_has_bytes_of_another(sizes: list[int]) -> None:
    pages = Pages()
    taken = [allocate(pages, n) for n in sizes]
    places = sorted((address(array), array.nbytes) for array in taken)
    assert list(map(len, taken)) == sizes
    assert all(at + n <= after for (at, n), (after, _) in pairwise(places))
    assert all(at % 64 == 0 for at, _ in places)


def test_what_is_larger_than_a_piece_is_there_too() -> None:
    pages = Pages()
    large = allocate(pages, 3 * module._PIECE_BYTES + 1)
    large[-1] = 7
    assert not np.shares_memory(allocate(pages, LEAST_BYTES), large)


def test_few_bytes_are_left_to_malloc() -> None:
    assert Pages().allocate(LEAST_BYTES - 1) is None
    assert Buffers(Pages()).take((3,), np.dtype("f4")).shape == (3,)


def test_the_system_is_asked_for_large_pages() -> None:
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("this system has no large pages")
    taken = Buffers(Pages()).take((1 << 20,), np.dtype("f4"))
    assert large_pages_are_wanted(address(taken))


def test_without_large_pages_there_are_usual_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(module.mmap, "MADV_HUGEPAGE", raising=False)
    taken = Buffers(Pages()).take((1 << 20,), np.dtype("f4"))
    taken[:] = 1
    assert taken.sum() == 1 << 20


def test_memory_goes_back_to_the_system_with_its_last_array() -> None:
    pages = Pages()
    first, _ = (allocate(pages, module._PIECE_BYTES) for _ in range(2))
    kept, at = first[:10], address(first)
    del first, _, pages
    gc.collect()
    assert mapping(at)
    del kept
    gc.collect()
    assert not mapping(at)
