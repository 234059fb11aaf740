"""Steps of one message that are whole segments of one part, admitted together.

Of a small step the receiver's time is Python, not memory: here much of it is spent once for all
steps of a bunch. What is written is what the way of a single step writes, in the same order; where
anything is out of the ordinary, nothing is admitted, and the steps take that way. Owned by the
shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.wire import Header
from penstock_server.credit import Credit
from penstock_server.door import copy_finite, finite
from penstock_server.parts import PartPlaces
from penstock_server.slab import Slab
from penstock_server.slots import Slots
from penstock_server.streams import Stream

Array = npt.NDArray[Any]
Block = bytes | memoryview

LARGE_BYTES = 1 << 15  # a step from here on is copied by itself
PIECE_BYTES = 1 << 18  # of steps that are looked at and copied before the next


class Bunches:
    """Their way into a slab whose segments are single steps."""

    def __init__(self, slab: Slab, slots: Slots, credit: Credit, max_steps: int) -> None:
        self._slots, self._credit, self._max_steps = slots, credit, max_steps
        self._needs_inputs = bool(slab.spec.inputs)
        self._t = slab.t.reshape(-1)
        n_slots = slab.spec.n_slots
        self._flat = {name: array.reshape(n_slots, -1) for name, array in slab.fields.items()}

    def admit(
        self,
        stream: Stream,
        header: Header,
        steps: Array,
        blocks: Sequence[Block],
    ) -> tuple[list[int], list[int]] | None:
        """The slots and ordinals of the segments; None: they are to come one by one.

        steps (n,) of wire.STEP, and for each field a block of all of them; the shard has looked at
        the table of the fields.
        """
        segments = steps["step"].tolist()
        ordinals = self._ordinals(stream, header, segments)
        if ordinals is None:
            return None
        slots = self._slots.take_all(stream, segments)
        if not self._fill(stream.places[header.part], slots, blocks):
            for slot in slots:
                self._slots.free(slot)
            return None
        self._t[slots] = steps["t"]
        self._credit.use_all(stream, ordinals)
        stream.steps_seen = max(stream.steps_seen, segments[-1] + 1)
        return slots, self._slots.commit_all(stream, segments, slots)

    def _ordinals(
        self, stream: Stream, header: Header, segments: Sequence[int]
    ) -> Sequence[int] | None:
        """Those of the segments, if each is new, ascends, and has its slot kept for it."""
        places = stream.places[header.part]
        if stream.all_parts != 1 or not stream.covered or stream.refused is not None:
            return None
        if self._needs_inputs and (stream.row is None or not stream.has_inputs(header.part)):
            return None
        if any(place.target.first is None for place in places.places):
            return None
        most = self._max_steps if stream.n_steps is None else stream.n_steps
        if segments[-1] >= most or any(a >= b for a, b in pairwise(segments)):
            return None
        stride, position = stream.stride, stream.position
        if stride == 1:
            ordinals = segments
        else:
            ordinals = [segment // stride for segment in segments]
            if any(segment % stride != position for segment in segments):
                return None
        return ordinals if stream.reserved_ordinals.issuperset(ordinals) else None

    def _fill(self, places: PartPlaces, slots: Sequence[int], blocks: Sequence[Block]) -> bool:
        """Copies the values into the slots; False where one is not finite."""
        for place, block in zip(places.places, blocks):
            first, n = place.target.first or 0, place.target.n
            there = self._flat[place.name][:, first : first + n]
            steps = np.frombuffer(block, place.flat.dtype).reshape(len(slots), n)
            if steps[0].nbytes > PIECE_BYTES:
                if not all(copy_finite(there[s], step) for s, step in zip(slots, steps)):
                    return False
                continue
            small = steps[0].nbytes < LARGE_BYTES
            n_piece = max(1, PIECE_BYTES // max(1, steps[0].nbytes))
            for at in range(0, len(slots), n_piece):
                own, piece = slots[at : at + n_piece], steps[at : at + n_piece]
                if not finite(piece.reshape(-1)):
                    return False
                if small:
                    there[own] = piece
                else:  # numpy would need longer with them all
                    for slot, step in zip(own, piece):
                        there[slot] = step
        return True
