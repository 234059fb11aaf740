"""Memory of the stream that a solver writes a field of a step into, so that nothing is copied.

Of a large step the copy into the window is most of what `send` costs. ADIOS2 calls such memory a
span. An array is with the solver until it is sent, on its way until it is acknowledged, and may be
read by the solver until the one after it is sent: an explicit scheme needs the step before. So a
field has two, and those on their way. Owned by the simulation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from penstock.arena import address
from penstock.buffers import Buffers


class _Span:
    """memory: what `Buffers` gave; the solver has the same bytes, in shapes of its own."""

    def __init__(self, memory: np.ndarray) -> None:
        self.memory, self.on_its_way = memory, False
        self._arrays: dict[tuple[int, ...], np.ndarray] = {}

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        return self._arrays.setdefault(shape, self.memory.reshape(shape))

    def close(self) -> None:
        """The solver writes no more."""
        for array in self._arrays.values():
            array.flags.writeable = False

    def handed_out(self, values: Any) -> bool:
        """Whether it is the very array, of which nothing needs to be asked."""
        return any(values is array for array in self._arrays.values())

    def has_part_of(self, values: Any) -> bool:
        return self.handed_out(values) or bool(np.may_share_memory(np.asarray(values), self.memory))

    def is_all_of(self, values: np.ndarray) -> bool:
        """Whether it can be sent for these values, in whatever shape."""
        return self.handed_out(values) or (
            values.size == self.memory.size
            and values.dtype == self.memory.dtype
            and values.flags.c_contiguous
            and address(values) == address(self.memory)
        )


class Spans:
    """Two for each field that asks: the one that the solver writes, and the one it sent last."""

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers
        self._next: dict[str, _Span] = {}
        self._last: dict[str, _Span] = {}
        self._before: list[_Span] = []  # the last of the last `send`, which may still be read in it

    def empty(
        self, field: str, shape: tuple[int, ...], sent: tuple[int, ...], dtype: np.dtype
    ) -> np.ndarray:
        """What the solver is to write: its `shape`, or as the stream has it, `sent`.

        The same one until that was sent, so that a solver that asks twice gets no second.
        """
        self._settle()
        span = self._next.get(field)
        if span is not None and (span.memory.shape, span.memory.dtype) != (sent, dtype):
            self._leave(self._next.pop(field))
            span = None
        if span is None:
            span = self._next[field] = _Span(self._buffers.take(sent, dtype))
        return span.array(shape)

    def sent(self, fields: Mapping[str, Any]) -> None:
        """The solver hands these over, on whatever way they go: it reads them only, from now on."""
        self._settle()
        for field, values in fields.items():
            span = self._next.get(field)
            if span is not None and span.has_part_of(values):
                if field in self._last:
                    self._before.append(self._last[field])
                self._last[field] = self._next.pop(field)
                span.close()

    def holds(self, field: str, values: np.ndarray) -> bool:
        """Whether the values lie in its memory, and that can go on its way."""
        span = self._last.get(field)
        return span is not None and not span.on_its_way and span.is_all_of(values)

    def claim(self, field: str, values: np.ndarray) -> np.ndarray | None:
        """The memory, if it holds the values; None: copy them."""
        if not self.holds(field, values):
            return None
        span = self._last[field]
        span.on_its_way = True
        return span.memory

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Memory for a copy of what is somewhere else."""
        return self._buffers.take(shape, dtype)

    def give_back(self, memory: np.ndarray) -> None:
        """What `claim` or `take` gave is acknowledged."""
        for span in (*self._last.values(), *self._before):
            if span.memory is memory:
                span.on_its_way = False
                return
        self._buffers.give(memory)

    def close(self) -> None:
        """The solver has done with all of them."""
        self._settle()
        for span in (*self._next.values(), *self._last.values()):
            self._leave(span)
        self._next.clear()
        self._last.clear()

    def _settle(self) -> None:
        """The last `send` is over: nobody reads what was sent before its fields."""
        for span in self._before:
            self._leave(span)
        self._before.clear()

    def _leave(self, span: _Span) -> None:
        """The solver has done with it; what is on its way is given back later."""
        span.close()
        if not span.on_its_way:
            self._buffers.give(span.memory)
