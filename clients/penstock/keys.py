"""The key file of a campaign: who may connect to it, and to whom; read once by every process.

A campaign that is secured has a key pair for its server and one for its clients, new in every
session. PENSTOCK_KEYS names the file with the clients' half; what is in it stands in WIRE.md.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from penstock.errors import KeyFileError

VARIABLE = "PENSTOCK_KEYS"
KEY_LENGTH = 40  # characters of Z85; 32 bytes


@dataclass(frozen=True)
class ClientKeys:
    """What a client needs to be let in; its text says where it comes from and nothing else."""

    path: str
    client_public: bytes = field(repr=False)
    client_secret: bytes = field(repr=False)
    server_public: bytes = field(repr=False)

    @classmethod
    def read(cls, path: Path | str) -> ClientKeys:
        """Raises KeyFileError when the file is not there, not whole, or not private."""
        found = read_keys(path, ("client_public", "client_secret", "server_public"))
        return cls(str(path), **found)

    @classmethod
    def given(cls, path: str | None) -> ClientKeys | None:
        """As `read`; None where there is no path."""
        return cls.read(path) if path else None

    @classmethod
    def from_environment(cls) -> ClientKeys | None:
        """The keys of the file that PENSTOCK_KEYS names; None when it is not set, or empty."""
        return cls.given(os.environ.get(VARIABLE))

    def put_on(self, socket: zmq.Socket[bytes]) -> None:
        """Before the socket connects."""
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.client_public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.client_secret)
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server_public)


def read_keys(path: Path | str, names: tuple[str, ...]) -> Mapping[str, bytes]:
    """The named keys of a file, 40 characters each.

    Raises KeyFileError, whose text never holds a key.
    """
    if not zmq.has("curve"):
        raise KeyFileError(
            f"{path} asks for CURVE, and the libzmq of this interpreter was built without it. "
            "Install another pyzmq: the wheels on PyPI have it."
        )
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(1 << 16).decode("ascii", "replace")
    except OSError as error:
        raise KeyFileError(
            f"The key file {path} cannot be read: {error.strerror}. A campaign has new keys each "
            f"time that it is started or resumed; set {VARIABLE} to the file of the running one."
        ) from error
    if stat.S_IMODE(mode) & 0o077:  # a key that others could read is no key; ssh says so, too
        raise KeyFileError(
            f"The key file {path} has the permissions {stat.S_IMODE(mode):04o}, so others can use "
            f"it. Make it yours alone: chmod 600 {path}"
        )
    lines = (line.split() for line in text.splitlines() if not line.startswith("#"))
    found = {words[0]: words[2] for words in lines if len(words) == 3 and words[1] == "="}
    for name in names:
        if len(found.get(name, "")) != KEY_LENGTH:
            raise KeyFileError(
                f"The key file {path} has no line `{name} = KEY` with {KEY_LENGTH} characters of "
                "key. Take the file as the campaign wrote it."
            )
    return {name: found[name].encode("ascii", "replace") for name in names}
