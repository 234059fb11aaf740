"""What kind of file system a path is on; the coordinator's store asks, for SQLite's sake."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
# Seen from several machines. SQLite's write-ahead log needs memory shared by all who read it, which
# these do not give across machines, and some not at all.
NETWORK = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4",
    "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "virtiofs", "wekafs",
})  # fmt: skip
_ESCAPE = re.compile(r"\\([0-7]{3})")


def kind(path: Path, mounts: str | None = None) -> str:
    """Its name as in `mount -t`, "fuse." taken off; empty where the system does not tell.

    mounts: the text of /proc/self/mountinfo.
    """
    if mounts is None:
        if not MOUNTS.is_file():
            return ""
        mounts = MOUNTS.read_text(encoding="utf-8", errors="replace")
    resolved, found, depth = path.resolve(), "", 0
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = Path(_ESCAPE.sub(lambda m: chr(int(m[1], 8)), before.split()[4]))
        # The last one of several on a point is the one that is seen.
        if resolved.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = after.split()[0].removeprefix("fuse."), len(point.parts)
    return found


def on_network(path: Path, mounts: str | None = None) -> bool:
    """Whether other machines may see the same files."""
    name = kind(path, mounts)
    return name in NETWORK or name.startswith("sshfs")
