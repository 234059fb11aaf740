"""Where the processes of a run listen: ports chosen once, before the first of them starts."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock_server.sizes import measured, n_ports

# Above the ports of Ray's workers, below those of outgoing connections.
QUIET_PORTS = range(20_000, 32_768)


@dataclass(frozen=True)
class Addresses:
    """Where the processes of a run listen; chosen once, kept over restarts."""

    coordinator: str
    shards: Mapping[str, str]
    metrics: Mapping[str, int]  # process -> port

    @classmethod
    def choose(cls, shards: Sequence[str]) -> Addresses:
        """Free ports of the loopback interface: for data one a shard, for metrics one a process."""
        ports = free_ports(n_ports(shards))
        metrics = dict(zip(measured(shards), ports[1 + len(shards) :], strict=True))
        data = {name: f"tcp://127.0.0.1:{port}" for name, port in zip(shards, ports[1:])}
        return cls(f"tcp://127.0.0.1:{ports[0]}", data, metrics)


def free_ports(n: int) -> list[int]:
    """Different ports of 127.0.0.1 that nobody listens on at present.

    Not of the range that outgoing connections take theirs from: a port of it can be gone before
    its process listens, seconds later. If QUIET_PORTS has none left, that range has to do.
    """
    candidates = random.SystemRandom().sample(QUIET_PORTS, min(20 * n, len(QUIET_PORTS)))
    sockets: list[socket.socket] = []
    try:
        for port in [*candidates, *[0] * n]:
            if len(sockets) == n:
                break
            each = socket.socket()
            try:
                each.bind(("127.0.0.1", port))
            except OSError:
                each.close()
                continue
            sockets.append(each)
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()
