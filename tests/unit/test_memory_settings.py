"""What a receiver is told of memory, and what comes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_server.processes import GLIBC_SETTINGS, memory_settings

COPIES, PAGES = "glibc.cpu.x86_non_temporal_threshold", "glibc.malloc.hugetlb"
LARGE_PAGES = """
from ctypes import addressof, create_string_buffer
from memory_maps import large_pages_are_wanted
memory = create_string_buffer(1 << 24)
print(large_pages_are_wanted(addressof(memory) + (1 << 23)))
"""
KEPT = """
from ctypes import addressof, create_string_buffer
from memory_maps import mapping
memory = create_string_buffer(1 << 24)
middle = addressof(memory) + (1 << 23)
del memory
print(mapping(middle) is not None)
"""


def says(program: str, settings: dict[str, str]) -> bool:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent, env={**os.environ, **settings}, capture_output=True, text=True,
        check=True, timeout=30,
    )  # fmt: skip
    return {"True": True, "False": False}[done.stdout.strip()]


def settings_of(given: str | None) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        if given is None:
            patch.delenv("GLIBC_TUNABLES", raising=False)
        else:
            patch.setenv("GLIBC_TUNABLES", given)
        return memory_settings()["GLIBC_TUNABLES"].split(":")


def test_a_users_own_setting_is_kept() -> None:
    ours = [f"{name}={value}" for name, value in GLIBC_SETTINGS.items()]
    assert settings_of(None) == ours
    assert settings_of("glibc.malloc.check=1") == ["glibc.malloc.check=1", *ours]
    assert settings_of(f"{PAGES}=0:{COPIES}=9") == [f"{PAGES}=0", f"{COPIES}=9", *ours[2:]]


def test_freed_memory_stays_with_such_a_process() -> None:
    if os.confstr("CS_GNU_LIBC_VERSION") is None:
        pytest.skip("without glibc nothing happens")
    assert says(KEPT, memory_settings())
    assert not says(KEPT, {"GLIBC_TUNABLES": ""})


def test_what_such_a_process_allocates_lies_in_large_pages() -> None:
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not enabled.exists() or "[madvise]" not in enabled.read_text():
        pytest.skip("a program does not have to ask for large pages here, or there are none")
    version = (os.confstr("CS_GNU_LIBC_VERSION") or "none 0.0").split()[1]
    if tuple(map(int, version.split("."))) < (2, 35):
        pytest.skip("this glibc cannot ask for large pages")

    assert says(LARGE_PAGES, memory_settings())
    assert not says(LARGE_PAGES, {"GLIBC_TUNABLES": f"{PAGES}=0"})
