"""Files and Redis as carriers of arrays, the peers of many_to_one.py; numpy and redis alone.

Every producer and the consumer is a process that runs this file:

    python carriers.py put files FOLDER VALUES ARRAYS NAME IN_FLIGHT
    python carriers.py put redis SOCKET VALUES ARRAYS NAME IN_FLIGHT
    python carriers.py get files|redis FOLDER|SOCKET VALUES ARRAYS COUNTER

IN_FLIGHT is how many arrays a producer may be ahead of the consumer. The consumer has every array
in a place of its own in an arena that was written before, and counts them in the file COUNTER.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

PAUSE_S = 0.0002
# Redis: small arrays go together up to this size, large ones in pieces of it. Whole, 8 MB took
# four times as long, and one list command with all values twice as long as a pipeline at 80 kB.
GROUP_BYTES = 1 << 20
QUEUE, PRODUCERS = "arrays", "producers"


def put_files(folder: Path, values: Array, arrays: int, name: str, in_flight: int) -> None:
    """Each array under a name that nobody looks at, then renamed."""
    part = folder / f".{name}"
    for number in range(arrays):
        before = folder / f"{number - in_flight:08d}-{name}"
        while number >= in_flight and before.exists():
            time.sleep(PAUSE_S)
        with part.open("wb") as file:
            np.save(file, values)
        part.rename(folder / f"{number:08d}-{name}")


def get_files(folder: Path, arena: Array) -> Iterator[int]:
    """np.load in parts: its check of the header, then the values straight into their place."""
    at = 0
    while at < len(arena):
        names = sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
        if not names:
            time.sleep(PAUSE_S)
        for name in names:
            path = folder / name
            with path.open("rb", buffering=0) as file:
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                assert shape == arena[at].shape and dtype == arena.dtype
                assert file.readinto(arena[at].data) == arena[at].nbytes
            path.unlink()
            at += 1
            yield at


def put_redis(socket: Path, values: Array, arrays: int, name: str, in_flight: int) -> None:
    """A key a piece, and a list of the producer's own that says which arrays are whole."""
    redis = _connect(socket)
    raw = values.view("u1").data
    pieces = [raw[at : at + GROUP_BYTES] for at in range(0, values.nbytes, GROUP_BYTES)]
    group = max(1, min(GROUP_BYTES // values.nbytes, in_flight // 2))
    for first in range(0, arrays, group):
        numbers = range(first, min(first + group, arrays))
        commands = redis.pipeline(transaction=False)
        for number in numbers:
            for at, piece in enumerate(pieces):
                commands.set(f"{name}-{number}-{at}", piece)
        commands.rpush(f"{QUEUE}-{name}", *(f"{name}-{number}" for number in numbers))
        waiting = commands.execute()[-1]
        while waiting > in_flight - group:
            time.sleep(PAUSE_S)
            waiting = redis.llen(f"{QUEUE}-{name}")


def get_redis(socket: Path, arena: Array) -> Iterator[int]:
    """Waits for whichever producer has something, and takes as much of it as an answer holds."""
    redis = _connect(socket)
    group = max(1, GROUP_BYTES // arena[0].nbytes)
    n_pieces = -(-arena[0].nbytes // GROUP_BYTES)
    queues = deque(f"{QUEUE}-{number}" for number in range(int(redis.get(PRODUCERS))))
    at = 0
    while at < len(arena):
        _, names = redis.blmpop(0, len(queues), *queues, direction="LEFT", count=group)
        queues.rotate(1)  # the first that has something is served: not always the same
        commands = redis.pipeline(transaction=False)
        for name in names:
            for piece in range(n_pieces):
                commands.getdel(f"{name.decode()}-{piece}")
        pieces = iter(commands.execute())
        for _ in names:
            place = arena[at].view("u1")
            for begin in range(0, len(place), GROUP_BYTES):
                place[begin : begin + GROUP_BYTES] = np.frombuffer(next(pieces), "u1")
            at += 1
            yield at


def announce(socket: Path, producers: int) -> None:
    """Tells the consumer how many lists there will be."""
    _connect(socket).set(PRODUCERS, producers)


def _connect(socket: Path) -> Any:
    from redis import Redis

    return Redis(unix_socket_path=str(socket))


PUT: dict[str, Callable[[Path, Array, int, str, int], None]] = {
    "files": put_files,
    "redis": put_redis,
}
GET: dict[str, Callable[[Path, Array], Iterator[int]]] = {"files": get_files, "redis": get_redis}


def main() -> None:
    what, carrier, where, values, arrays = sys.argv[1:6]
    if what == "put":
        content = np.random.default_rng(0).standard_normal(int(values)).astype("f4")
        PUT[carrier](Path(where), content, int(arrays), sys.argv[6], int(sys.argv[7]))
        return
    arena = np.ones((int(arrays), int(values)), "f4")  # written: the pages are there
    arrived = np.memmap(sys.argv[6], dtype="<u8", mode="r+")
    print("ready", flush=True)
    for n in GET[carrier](Path(where), arena):
        arrived[0] = n


if __name__ == "__main__":
    main()
