"""Which file systems are of a network, and how the coordinator's database is kept on them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from audit_run import finished_run

from penstock_server.audit.database import read_books
from penstock_server.coordinator import Store
from penstock_server.coordinator.records import Entry
from penstock_server.file_system import kind, on_network

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /home rw,relatime shared:2 - nfs4 server:/home rw,vers=4.2
31 30 0:41 / /home/me/scratch rw - lustre 10.0.0.1@tcp:/scratch rw,flock
32 22 0:42 / /with\\040a\\040space rw - cifs //server/share rw
33 22 0:43 / /remote rw - fuse.sshfs me@there:/ rw
34 22 254:1 / /homework rw - xfs /dev/vdb rw
35 22 0:44 / /twice rw - nfs server:/a rw
36 35 254:2 / /twice rw - ext4 /dev/vdc rw
"""


@pytest.mark.parametrize(
    ("path", "name", "network"),
    [
        ("/", "ext4", False),
        ("/home/me/runs/heat", "nfs4", True),
        ("/home/me/scratch/runs", "lustre", True),
        ("/homework/runs", "xfs", False),
        ("/with a space/runs", "cifs", True),
        ("/remote/runs", "sshfs", True),
        ("/twice/runs", "ext4", False),
    ],
)
def test_a_path_is_on_the_deepest_and_newest_mount(path: str, name: str, network: bool) -> None:
    assert kind(Path(path), MOUNTS) == name
    assert on_network(Path(path), MOUNTS) is network


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has mountinfo")
def test_memory_is_known_and_is_no_network() -> None:
    assert kind(Path("/dev/shm")) == "tmpfs"
    assert not on_network(Path("/dev/shm"))


WRITER = """
import sys, itertools
from penstock_server.coordinator import Store
from penstock_server.coordinator.records import Entry
store = Store(sys.argv[1], network=True)
for number in itertools.count():
    store.write([Entry("events", number, 0.0, {}), Entry("faults", number, 0.0, {})])
    print(number, flush=True)
"""


def test_without_a_write_ahead_log_a_killed_coordinator_loses_no_event_either(
    tmp_path: Path,
) -> None:
    path = tmp_path / "coordinator.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    while (line := writer.stdout.readline()) and int(line) < 50:
        pass
    assert not [p.name for p in tmp_path.iterdir() if p.name.endswith(("-wal", "-shm"))]
    os.kill(writer.pid, signal.SIGKILL)
    said = [int(line) for line in writer.stdout.read().split()]
    writer.wait()
    writer.stdout.close()
    store = Store(path, network=True)
    events, faults = (store.read(Entry, "stream = ?", stream) for stream in ("events", "faults"))
    store.close()
    assert [each.serial for each in events] == [each.serial for each in faults]
    assert len(events) > max(said, default=50)


def test_a_database_moves_from_a_local_disk_to_a_network_and_back(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.sqlite"
    for number, network in enumerate((False, True, False)):
        store = Store(path, network=network)
        store.write([Entry("events", number, 0.0, {})])
        assert len(store.read(Entry)) == number + 1
        assert path.with_name(f"{path.name}-wal").exists() is not network
        store.close()


HALF = """
import sqlite3, sys, time
books = sqlite3.connect(sys.argv[1], isolation_level=None)
books.execute("PRAGMA journal_mode=TRUNCATE")
books.execute("PRAGMA cache_size=1")  # so that pages reach the file before the end
books.execute("BEGIN")
books.execute("UPDATE simulations SET state = 'failed'")
books.execute("CREATE TABLE other (text TEXT)")
books.executemany("INSERT INTO other VALUES (?)", [("x" * 2000,)] * 500)
print("half", flush=True)
time.sleep(600)
"""


def test_an_event_that_a_killed_coordinator_left_half_written_is_not_read(tmp_path: Path) -> None:
    path = finished_run(tmp_path / "run") / "coordinator.sqlite"
    before = read_books(path)
    writer = subprocess.Popen([sys.executable, "-c", HALF, str(path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"half\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert path.with_name(f"{path.name}-journal").stat().st_size > 0
    assert read_books(path) == before
