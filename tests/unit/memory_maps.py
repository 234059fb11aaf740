"""What the system says of the memory of this process; Linux only."""

from __future__ import annotations

import re
from pathlib import Path


def mapping(at: int) -> str | None:
    """The entry in /proc of what is mapped at an address; None: nothing is."""
    for entry in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()):
        first, last = (int(end, 16) for end in entry.split(" ", 1)[0].split("-"))
        if first <= at < last:
            return entry
    return None


def large_pages_are_wanted(at: int) -> bool:
    """Whether the process asked for them there."""
    return bool(re.search(r"^VmFlags:.* hg\b", mapping(at) or "", re.MULTILINE))
