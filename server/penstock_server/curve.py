"""CURVE on the sockets that solvers reach: a session's keys, who is let in, how many were not.

The supervisor calls `make_keys` before the first process starts; coordinator and receivers own a
Guard for their socket. There is no thread in it: the ZAP requests of libzmq wait in the process's
own loop, which a handshake costs a few microseconds and everything else nothing. A thread (pyzmq's
ThreadAuthenticator) would contend for the interpreter lock with the receive loop whenever many
knock, count where two could write, and has the clients' keys in its own log messages.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from penstock.keys import read_keys

DOMAIN = b"penstock"
REFUSED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
BURST = 64  # requests and events before the other sockets get a turn
SAY_S = 30.0  # between two lines of the log


@dataclass(frozen=True)
class KeyFiles:
    """Of one session; `server` is for coordinator and receivers, `client` for all who ask them."""

    server: str
    client: str


def make_keys(folder: Path) -> KeyFiles:
    """New keys in a new folder, for the owner alone."""
    folder.mkdir(mode=0o700)
    server_public, server_secret = zmq.curve_keypair()
    client_public, client_secret = zmq.curve_keypair()
    server = {
        "server_public": server_public,
        "server_secret": server_secret,
        "client_public": client_public,
    }
    client = {
        "client_public": client_public,
        "client_secret": client_secret,
        "server_public": server_public,
    }
    files = KeyFiles(str(folder / "server"), str(folder / "client"))
    _write(files.server, "server", server)
    _write(files.client, "clients", client)
    return files


class Guard:
    """Lets only clients with the campaign's key in; without keys it does nothing at all.

    One for each context. Create it before the socket that it protects: until somebody answers
    ZAP, nobody may get in.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], key_file: str | None, process: str
    ) -> None:
        self.sockets: list[zmq.Socket[bytes]] = []  # `turn` wants to be called when one is readable
        self._context, self._process = context, process
        self._protected: zmq.Socket[bytes] | None = None
        self._refused = self._told = 0
        self._say_at_s = 0.0
        if key_file is None:
            return
        names = ("server_secret", "client_public")
        keys = read_keys(key_file, names)
        self._secret, self._allowed = keys["server_secret"], z85.decode(keys["client_public"])
        self._zap = context.socket(zmq.REP)
        self._zap.setsockopt(zmq.LINGER, 0)
        self._zap.bind("inproc://zeromq.zap.01")
        self._monitor = context.socket(zmq.PAIR)
        # A monitor whose reader is full halts libzmq's own thread, and with it all data.
        self._monitor.setsockopt(zmq.RCVHWM, 0)
        self._monitor.setsockopt(zmq.LINGER, 0)
        self.sockets = [self._zap, self._monitor]

    def protect(self, socket: zmq.Socket[bytes]) -> None:
        """The one socket, before it is bound."""
        if not self.sockets:
            return
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._secret)
        # Without these two libzmq lets every key in while nobody answers ZAP.
        socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._protected = socket
        socket.monitor("inproc://refused", REFUSED)
        self._monitor.connect("inproc://refused")

    def turn(self) -> None:
        """Answers who waits to be let in; counts who was not."""
        if not self.sockets:
            return
        for _ in range(BURST):
            try:
                request = self._zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._zap.send_multipart(answer(request, self._allowed))
        for _ in range(BURST):
            if not self._monitor.poll(0):
                break
            recv_monitor_message(self._monitor)
            self._refused += 1
        if self._refused > self._told and time.monotonic() >= self._say_at_s:
            self._say()

    def counts(self) -> Mapping[str, float]:
        """For reports and metrics; from any thread."""
        return {"handshakes_refused": float(self._refused)}

    def close(self) -> None:
        """Before the socket that is protected; may be called twice.

        A monitor without a reader halts libzmq's own thread at its next event.
        """
        if self._protected is not None and not self._protected.closed:
            self._protected.disable_monitor()
        self._protected = None
        for socket in self.sockets:
            socket.close()
        self.sockets = []

    def _say(self) -> None:
        self._told, self._say_at_s = self._refused, time.monotonic() + SAY_S
        print(
            f"{self._process}: handshakes refused so far: {self._refused}. Somebody connects "
            "without the key of this session of the campaign.",
            file=sys.stderr,
            flush=True,
        )


def answer(request: list[bytes], allowed: bytes) -> list[bytes]:
    """The reply to a ZAP request (RFC 27): 200 for the one key that is allowed, else 400.

    It names no user: libzmq would put the name before the connection's messages and count it among
    those that wait until the connection ends, so that one with room for a single one has none.
    """
    _version, number, domain, _address, _identity, mechanism, *credentials = request
    ok = domain == DOMAIN and mechanism == b"CURVE" and credentials == [allowed]
    status, text = (b"200", b"") if ok else (b"400", b"not a key of this campaign")
    return [b"1.0", number, status, text, b"", b""]


def _write(path: str, whose: str, keys: Mapping[str, bytes]) -> None:
    """For the owner alone from the first moment: a chmod afterwards would leave a moment before."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"# Penstock: keys of a campaign's {whose}. Secret; void when the run ends.\n")
        file.writelines(f"{name} = {key.decode()}\n" for name, key in keys.items())
