"""What a receiver is told of memory, and what comes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_server.processes import STREAMED_BYTES, memory_settings

COPIES, PAGES = "glibc.cpu.x86_non_temporal_threshold", "glibc.malloc.hugetlb"
ASKS_FOR_THEM = r"""
import ctypes, re
from pathlib import Path
kept = ctypes.create_string_buffer(1 << 24)
at = ctypes.addressof(kept)
for entry in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()):
    first, last = (int(end, 16) for end in entry.split(" ", 1)[0].split("-"))
    if first <= at < last:
        print(bool(re.search(r"^VmFlags:.* hg\b", entry, re.MULTILINE)))
"""


def test_a_users_own_setting_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = f"{COPIES}={STREAMED_BYTES}", f"{PAGES}=1"
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert memory_settings() == {"GLIBC_TUNABLES": ":".join(ours)}
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    assert memory_settings() == {"GLIBC_TUNABLES": ":".join(("glibc.malloc.check=1", *ours))}
    monkeypatch.setenv("GLIBC_TUNABLES", f"{COPIES}=99999")
    assert memory_settings() == {"GLIBC_TUNABLES": f"{COPIES}=99999:{PAGES}=1"}
    monkeypatch.setenv("GLIBC_TUNABLES", f"{PAGES}=0:{COPIES}=99999")
    assert memory_settings() == {"GLIBC_TUNABLES": f"{PAGES}=0:{COPIES}=99999"}


def test_what_such_a_process_allocates_lies_in_large_pages() -> None:
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not enabled.exists() or "[madvise]" not in enabled.read_text():
        pytest.skip("a program does not have to ask for large pages here, or there are none")
    if tuple(map(int, os.confstr("CS_GNU_LIBC_VERSION").split()[1].split("."))) < (2, 35):
        pytest.skip("this glibc cannot ask for large pages")

    def asked(settings: dict[str, str]) -> str:
        command = [sys.executable, "-c", ASKS_FOR_THEM]
        return subprocess.run(
            command, env={**os.environ, **settings}, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert asked(memory_settings()) == "True"
    assert asked({"GLIBC_TUNABLES": f"{PAGES}=0"}) == "False"
