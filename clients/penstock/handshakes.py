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
WATCHED = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
OTHER_MECHANISM = 0x11000002  # one side has CURVE, the other has not
_NUMBERS = itertools.count()


class Handshakes:
    """Of the sockets that an Asker has one after the other."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], key_file: str | None) -> None:
        self._context, self._key_file = context, key_file
        self._watched: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._broken_since_s: float | None = None
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
        """Why the server does not let this process in, as a sentence; empty: it may yet."""
        while self._monitor is not None and self._monitor.poll(0):
            message = recv_monitor_message(self._monitor)
            self._note(int(message["event"]), int(message["value"]), now_s)
        since_s = self._broken_since_s
        if since_s is not None and now_s - since_s > UNCERTAIN_S and self._key_file:
            return (
                f"it ends every connection before keys are agreed: the key in {self._key_file} "
                "is of another campaign, or of an earlier session of this one."
            )
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
            self._broken_since_s, self._refusal = None, ""
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._refusal = f"it does not accept the key in {self._key_file}."
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == OTHER_MECHANISM:
            self._refusal = (
                f"it has no keys, and PENSTOCK_KEYS names {self._key_file}. Unset it."
                if self._key_file
                else "it wants the campaign's key, and PENSTOCK_KEYS names no key file. Agents set "
                "it; by hand, take the clients' file of the running campaign."
            )
        elif self._broken_since_s is None:
            self._broken_since_s = now_s
