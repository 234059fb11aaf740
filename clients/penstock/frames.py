"""ZeroMQ's frames of payloads, and of memory that steps are sent from again and again.

A frame that shares its memory is entered in a list of pyzmq's, and when ZeroMQ has done with it a
thread of pyzmq's wakes to strike it out, which finds nothing of itself in the caches. A frame that
stays here is entered once, and each send of it only counts. Owned by a sender.
"""

from __future__ import annotations

import numpy as np
import zmq

ZERO_COPY_BYTES = 1 << 16  # below this a copy is cheaper than pyzmq's bookkeeping


class Frames:
    """What to send for an array."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[np.ndarray, zmq.Frame]] = {}  # the array, so that its id stays

    def of(self, payload: np.ndarray, stays: bool) -> memoryview | zmq.Frame:
        """Its bytes to be copied, or where it is large a frame of them.

        stays: it is one of a bounded number of arrays, each of which is sent many times.
        """
        found = self._made.get(id(payload)) if stays else None
        if found is not None:
            return found[1]
        view = payload.reshape(-1).view("u1").data
        if payload.nbytes < ZERO_COPY_BYTES:
            return view
        frame = zmq.Frame(view, copy=False)
        if stays:
            self._made[id(payload)] = payload, frame
        return frame

    def clear(self) -> None:
        """Nothing is sent any more; what is on its way keeps its memory."""
        self._made.clear()
