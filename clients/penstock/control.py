"""Request and reply with the coordinator; every process but itself asks through an Asker."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import zmq

from penstock.errors import KeyRefused
from penstock.handshakes import Handshakes
from penstock.keys import ClientKeys

LARGEST_BYTES = 1 << 20
DEEPEST = 32  # levels of a message
RESENDS_PER_SOCKET = 3  # unanswered, before a fresh socket is made: a half-open link never heals


class NoAnswer(TimeoutError):
    """The coordinator did not answer within the time that the caller gave it."""


def encode(message: Mapping[str, Any]) -> bytes:
    """A control message as a frame: UTF-8 JSON, numpy scalars as numbers, non-finite ones null.

    Raises ValueError when the frame would be larger than 1 MiB.
    """
    try:
        text = json.dumps(message, allow_nan=False, default=_plain, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(message), allow_nan=False, separators=(",", ":"))
    frame = text.encode()
    if len(frame) > LARGEST_BYTES:
        raise ValueError(
            f"A control message may have at most {LARGEST_BYTES} bytes, and this one "
            f"({message.get('kind')!r}) has {len(frame)}. Send less at once."
        )
    return frame


def decode(frame: bytes) -> dict[str, Any]:
    """The message in a frame.

    Raises ValueError when it is no JSON object, larger than 1 MiB or nested deeper than 32 levels.
    """
    if len(frame) > LARGEST_BYTES:
        raise ValueError(
            f"A control message of {len(frame)} bytes came; {LARGEST_BYTES} are allowed."
        )
    too_deep = f"A control message came that is nested deeper than {DEEPEST} levels."
    try:
        message = json.loads(frame.decode())  # both errors that this raises are ValueErrors
    except RecursionError as error:
        raise ValueError(too_deep) from error
    if not isinstance(message, dict):
        raise ValueError(f"A control message must be a JSON object, not {type(message).__name__}.")
    if _deep(message):
        raise ValueError(too_deep)
    return message


class Asker:
    """One process's line to the coordinator: a request at a time, repeated until it is answered.

    `ask` blocks; `post` and `poll` serve event loops. Not for several threads at once. A restarted
    coordinator is found again without the caller's doing. Whatever sends raises KeyRefused when
    the coordinator does not accept `keys`, or wants keys.
    """

    def __init__(
        self,
        address: str,
        name: str,
        *,
        resend_s: float = 1.0,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        keys: ClientKeys | None = None,
    ) -> None:
        self.address = address
        self.name = name
        self._resend_s = resend_s
        self._keys = keys
        self._context = context or zmq.Context.instance()
        self._handshakes = Handshakes(
            self._context, address, keys.path if keys is not None else None
        )
        self._number = 0
        self._frame: bytes | None = None  # the request that waits for its reply
        self._sent_at = 0.0
        self._waiting_since: float | None = None
        self._connected_at = 0.0
        self._socket: zmq.Socket[bytes] | None = self._connect()

    @property
    def pending(self) -> bool:
        """Whether a request waits for its reply."""
        return self._frame is not None

    @property
    def waited_s(self) -> float:
        """How long the coordinator has left us without any reply; 0 when nothing was asked."""
        return 0.0 if self._waiting_since is None else time.monotonic() - self._waiting_since

    def ask(self, kind: str, *, timeout_s: float = 30.0, **body: Any) -> dict[str, Any]:
        """Ask and wait. Raises NoAnswer after `timeout_s`; it may have been heard nevertheless."""
        deadline = time.monotonic() + timeout_s
        self.post(kind, **body)
        while True:
            left_s = deadline - time.monotonic()
            reply = self.poll(max(0.0, left_s))
            if reply is not None:
                return reply
            if left_s <= 0:
                self._frame = None
                raise NoAnswer(
                    f"The coordinator at {self.address} did not answer {kind!r} of {self.name} "
                    f"within {timeout_s:g} s. Is the campaign still running?"
                )

    def post(self, kind: str, **body: Any) -> None:
        """Send a request and return; one that waits for its reply still is given up for it."""
        self._number += 1
        message = {**body, "kind": kind, "from": self.name, "request": self._number}
        self._frame = encode(message)
        if self._waiting_since is None:
            self._waiting_since = time.monotonic()
        self._send()

    def poll(self, timeout_s: float = 0.0) -> dict[str, Any] | None:
        """The newest request's reply, if it comes within `timeout_s`; repeats what is due.

        Returns at once when no request waits for its reply.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            reply = self._receive()
            if reply is not None or self._frame is None:
                return reply
            now = time.monotonic()
            if now - self._sent_at >= self._resend_s:
                self._send()
            wait_s = min(deadline, self._sent_at + self._resend_s) - now
            if now >= deadline:
                return None
            self._open().poll(max(0, math.ceil(wait_s * 1000)))

    def close(self) -> None:
        """Give up what waits and close the socket; may be called twice."""
        self._frame = None
        self._handshakes.close()
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None

    def __enter__(self) -> Asker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _receive(self) -> dict[str, Any] | None:
        while self._frame is not None:
            try:
                reply = decode(self._open().recv(zmq.NOBLOCK))
            except zmq.Again:
                return None
            except ValueError:
                continue  # not from a coordinator; the request is repeated anyway
            if reply.get("request") != self._number:
                continue  # late, to a request that was given up
            self._frame = None
            self._waiting_since = None
            return reply
        return None

    def _send(self) -> None:
        assert self._frame is not None
        assert self._waiting_since is not None
        now = time.monotonic()
        if refusal := self._handshakes.refusal(now):
            raise KeyRefused(
                f"The coordinator at {self.address} does not let {self.name} in: {refusal}"
            )
        silent_s = now - max(self._connected_at, self._waiting_since)
        if silent_s >= RESENDS_PER_SOCKET * self._resend_s:
            self._handshakes.close()
            self._open().close(linger=0)
            self._socket = self._connect()
        with contextlib.suppress(zmq.Again):  # full: a later repetition has a fresh socket
            self._open().send(self._frame, zmq.NOBLOCK)
        self._sent_at = now

    def _open(self) -> zmq.Socket[bytes]:
        if self._socket is None:
            raise ValueError(f"The line of {self.name} to {self.address} is closed.")
        return self._socket

    def _connect(self) -> zmq.Socket[bytes]:
        self._connected_at = time.monotonic()
        socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_BYTES)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        if self._keys is not None:
            self._keys.put_on(socket)
        self._handshakes.watch(socket)
        socket.connect(self.address)
        return socket


def _plain(value: Any) -> Any:
    """A numpy scalar or array as Python's own; json calls it for what it does not know."""
    for method in ("item", "tolist"):
        if hasattr(value, method):
            try:
                return getattr(value, method)()
            except (TypeError, ValueError):
                continue
    raise TypeError(f"A control message cannot hold a {type(value).__name__}: {value!r}.")


def _deep(message: dict[str, Any]) -> bool:
    """Whether it is nested so deep that whoever walks through it might come to Python's limit."""
    level: list[Any] = [message]
    for _ in range(DEEPEST):
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [value for values in inner for value in values if isinstance(value, (dict, list))]
        if not level:
            return False
    return True


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return _finite(_plain(value))
