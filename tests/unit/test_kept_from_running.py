"""For how long a thread was ready and had no processor."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.processes import kept_from_running_s

SPIN = "while True: pass"


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="no schedstat")
def test_who_shares_a_processor_waits_for_it_and_who_sleeps_does_not() -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    other = subprocess.Popen([sys.executable, "-c", SPIN])  # on the same one
    try:
        before = kept_from_running_s()
        time.sleep(0.3)
        asleep = kept_from_running_s() - before
        until = time.monotonic() + 0.6
        while time.monotonic() < until:
            pass
        busy = kept_from_running_s() - before - asleep
    finally:
        other.kill()
        other.wait()
        os.sched_setaffinity(0, cores)
    assert asleep < 0.15 < busy
