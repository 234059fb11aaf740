"""Whether a server refuses this process's key: the handshakes of one line, watched for its Asker.

After a handshake that failed libzmq goes on reconnecting, or falls silent, and tells a monitor
alone. Without one a wrong key looks like a campaign that is not there.
"""

from __future__ import annotations

import contextlib
import itertools

import zmq
from zmq.utils.monitor import recv_monitor_message

UNCERTAIN_S = 10.0  # of broken handshakes; a server that is restarted breaks one at most
GREETING_S = 1.0  # to wait for each part of a server's own greeting
WATCHED = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
OTHER_MECHANISM = 0x11000002  # one side has CURVE, the other has not
SIGNATURE = b"\xff" + bytes(7) + b"\x01\x7f\x03"  # of ZMTP 3, RFC 23, and its version
_NUMBERS = itertools.count()


class Handshakes:
    """Of the sockets that an Asker has one after the other."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], address: str, key_file: str | None
    ) -> None:
        self._context, self._address, self._key_file = context, address, key_file
        self._watched: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._broken_since_s: float | None = None
        self._broken_s = 0.0  # from then until the last that failed
        self._refusal = ""

    def watch(self, socket: zmq.Socket[bytes]) -> None:
        """Before the socket connects; what the one before it showed is not forgotten."""
        self.close()
        self._watched = socket
        address = f"inproc://handshakes-{next(_NUMBERS)}"
        socket.monitor(address, WATCHED)
        self._monitor = self._context.socket(zmq.PAIR)
        # A monitor whose reader is full halts libzmq's own thread, and a solver reads seldom.
        self._monitor.setsockopt(zmq.RCVHWM, 0)
        self._monitor.setsockopt(zmq.LINGER, 0)
        self._monitor.connect(address)

    def refusal(self, now_s: float) -> str:
        """Why the server does not let this process in, as a sentence; empty: it may yet.

        Takes up to twice GREETING_S, or a little more of a server that greets in small parts, when
        handshakes have been failing for UNCERTAIN_S.
        """
        while self._monitor is not None and self._monitor.poll(0):
            message = recv_monitor_message(self._monitor)
            self._note(int(message["event"]), int(message["value"]), now_s)
        if not self._refusal and self._broken_s > UNCERTAIN_S:
            self._broken_since_s, self._broken_s = None, 0.0
            self._refusal = self._judged(mechanism(self._context, self._address))
        return self._refusal

    def close(self) -> None:
        """Before the socket that is watched; may be called twice.

        A monitor without a reader halts libzmq's own thread at its next event, also while the
        closed socket is being cleared away.
        """
        if self._watched is not None and not self._watched.closed:
            self._watched.disable_monitor()
        self._watched = None
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None

    def __del__(self) -> None:
        """An Asker that nobody closed goes in no order of ours."""
        with contextlib.suppress(Exception):
            self.close()

    def _note(self, event: int, value: int, now_s: float) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._broken_since_s, self._broken_s, self._refusal = None, 0.0, ""
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._refusal = f"it does not accept the key in {self._key_file}."
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == OTHER_MECHANISM:
            self._refusal = self._judged("NULL" if self._key_file else "CURVE")
        elif self._broken_since_s is None:
            self._broken_since_s = now_s
        else:
            self._broken_s = now_s - self._broken_since_s

    def _judged(self, theirs: str) -> str:
        """Why a server of this mechanism ends our handshakes; empty: it does not."""
        if theirs == "CURVE" and self._key_file:
            return (
                f"it ends every connection before keys are agreed: the key in {self._key_file} "
                "is of another campaign, or of an earlier session of this one."
            )
        if theirs == "CURVE":
            return (
                "it wants the campaign's key, and PENSTOCK_KEYS names no key file. Agents set it; "
                "by hand, take the clients' file of the running campaign."
            )
        if theirs == "NULL" and self._key_file:
            return f"it has no keys, and PENSTOCK_KEYS names {self._key_file}. Unset it."
        return ""


def mechanism(context: zmq.Context[zmq.Socket[bytes]], address: str) -> str:
    """NULL or CURVE, as the server greets whoever has not said his own; empty: nobody greets.

    In a handshake a server may end the connection before its own greeting has left, and an end
    without a greeting is also what a tunnel gives whose other side is not there.
    """
    with context.socket(zmq.STREAM) as line:
        line.setsockopt(zmq.LINGER, 0)
        line.setsockopt(zmq.RCVTIMEO, int(1000 * GREETING_S))
        try:
            line.connect(address)
            server, _ = line.recv_multipart()  # it is connected
            line.send_multipart([server, SIGNATURE])
            greeting = b""
            while len(greeting) < 32:
                _, part = line.recv_multipart()
                if not part:
                    return ""
                greeting += part
        except zmq.ZMQError:
            return ""
    return greeting[12:32].rstrip(b"\0").decode("ascii", "replace")
