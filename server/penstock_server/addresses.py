"""Where the processes of a run listen, and under which keys: chosen before the first starts."""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from penstock_server.curve import KeyFiles
from penstock_server.sizes import measured, n_ports
from penstock_server.tables import SecurityMode

# Above the ports of Ray's workers, below those of outgoing connections.
QUIET_PORTS = range(20_000, 32_768)
HOST = "127.0.0.1"  # that everything is bound to
LOCAL = re.compile(r"(ipc|inproc)://|tcp://(127\.|localhost:|\[::1\])")

Security = Literal["loopback", "curve", "trusted-network"]


@dataclass(frozen=True)
class Addresses:
    """Where the processes of a run listen; chosen once, kept over restarts."""

    coordinator: str
    shards: Mapping[str, str]
    metrics: Mapping[str, int]  # process -> port
    keys: KeyFiles | None = None  # None: whoever reaches a socket may talk to it

    @property
    def server_keys(self) -> str | None:
        """The file for those that are connected to."""
        return None if self.keys is None else self.keys.server

    @property
    def client_keys(self) -> str | None:
        """The file for those that connect."""
        return None if self.keys is None else self.keys.client

    def security(self, mode: SecurityMode) -> Security:
        """What the campaign's `security.mode` comes to."""
        return security(mode, [self.coordinator, *self.shards.values()])

    @classmethod
    def choose(cls, shards: Sequence[str]) -> Addresses:
        """Free ports of the loopback interface: for data one a shard, for metrics one a process."""
        ports = free_ports(n_ports(shards))
        metrics = dict(zip(measured(shards), ports[1 + len(shards) :], strict=True))
        data = {name: f"tcp://{HOST}:{port}" for name, port in zip(shards, ports[1:])}
        return cls(f"tcp://{HOST}:{ports[0]}", data, metrics)


def security(mode: SecurityMode, addresses: Iterable[str]) -> Security:
    """What protects the sockets at these addresses; "loopback": only this machine reaches them.

    One socket that can be reached from elsewhere puts keys on all of them: a client has one rule
    then, and what runs beside a receiver is no safer a place for plain text than the network.
    """
    if mode != "auto":
        return mode
    return "loopback" if all(LOCAL.match(address) for address in addresses) else "curve"


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
