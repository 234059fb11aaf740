"""Batches out of a slab for its rank: index arithmetic once a group, then one copy a field.

What is read of the slots when a group arrives, and what is copied when a batch is taken, may belong
to another segment by then. A slot's generation is odd while its content changes and never comes
back, so one look at the generations after the copy vouches for everything that was read before.

After a step of training the processor's caches hold nothing of this, and a line of Python costs ten
times what it does in a loop. So what can be done for a whole group is done for the group.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from penstock_server.device_copy import DeviceCopy
from penstock_server.feed_messages import Generations, Group, Ids
from penstock_server.patches import Box, Patches
from penstock_server.slab import DESCRIPTOR, Slab
from penstock_surrogates.batch import Batch


def _offset(name: str) -> int:
    return int(DESCRIPTOR.fields[name][1])  # type: ignore[index]


CPU = torch.device("cpu")

_SIMULATION = _offset("simulation") // 8
_GENERATION, _SEGMENT, _ROW = (_offset(name) // 4 for name in ("generation", "segment", "row"))


@dataclass(slots=True, eq=False)
class Promise:
    """A batch that the receiver has promised; b samples of k steps."""

    epoch: int
    number: int  # within the epoch
    samples: Ids
    generations: bytes  # of the samples' slots when they were promised, uint32
    places: Ids  # where they stand now
    n_first: int  # samples whose first draw this will be
    index: Tensor  # (b * k,) of the steps among all steps of the slab
    rows: Tensor  # (b,) of the input arrays
    batch: Batch  # with no fields and inputs yet


class SlotTable:
    """The slab's table as words: a column of its records costs ten times as much to look at."""

    def __init__(self, slab: Slab) -> None:
        self._words = slab.descriptor.view("<u4")
        self._n_words = DESCRIPTOR.itemsize // 4
        self._rows = self._words.reshape(-1, self._n_words)

    def rows(self, slots: Ids) -> Generations:
        """(n, words) a copy of these slots' rows."""
        return self._rows[slots]

    def places(self, slots: Ids) -> Ids:
        """Where `generations` finds those of these slots."""
        places: Ids = slots * self._n_words
        places += _GENERATION
        return places

    def generations(self, places: Ids) -> Generations:
        return self._words[places]


class Gatherer:
    """Of one rank, from the slab beside it."""

    def __init__(
        self,
        slab: Slab,
        device: torch.device = CPU,
        patches: Patches | None = None,
    ) -> None:
        """device: where the fields and inputs of a batch are to be; the rest stays on the CPU.

        patches: of the fields it names, one box a sample.
        """
        spec = slab.spec
        self._length, self._windows = spec.segment_steps, spec.windows
        self._window, self._span = spec.window, spec.span
        self._n_parameters, self._patches = spec.n_parameters, patches
        self._table = SlotTable(slab)
        self._offsets = spec.stride * np.arange(spec.window)
        self._t, self._parameters = slab.t.reshape(-1), slab.parameters
        # All steps one after the other, so that one index selects a step.
        self.fields = {
            name: torch.from_numpy(array.reshape(-1, *array.shape[2:]))
            for name, array in slab.fields.items()
        }
        self.inputs = {name: torch.from_numpy(array) for name, array in slab.inputs.items()}
        # With windows of one step a step stands there as a window already.
        self._steps = [
            (name, flat.unsqueeze(1) if spec.window == 1 else flat)
            for name, flat in self.fields.items()
        ]
        self._copy: DeviceCopy | None = None
        if device.type == "cuda":
            whole = {**self.fields, **self.inputs}
            for name in patches.names if patches is not None else ():
                del whole[name]
            self._copy = DeviceCopy(device, whole.values())

    def close(self) -> None:
        """May be called twice; nothing can be gathered after it."""
        if self._copy is not None:
            self._copy.close()

    @property
    def sample_bytes(self) -> int:
        """Of all fields and inputs of a sample, if they are whole."""
        steps = sum(flat[0].nbytes for flat in self.fields.values())
        return self._window * steps + sum(array[0].nbytes for array in self.inputs.values())

    @property
    def by_number(self) -> bool:
        """Whether what a batch has depends on its number."""
        return self._patches is not None

    def promises(self, group: Group) -> list[Promise]:
        """The batches of a group, in order."""
        n, k, size = len(group.samples), self._window, group.size
        slots = group.samples // self._windows
        at = group.samples + slots * (self._span - 1)  # its first step, among all steps
        rows = self._table.rows(slots)
        step = rows[:, _SEGMENT].astype(np.int64)
        step -= slots
        step *= self._length
        step += at
        index = (at[:, None] + self._offsets).reshape(-1) if k > 1 else at
        m = n // size
        columns = (
            index.reshape(m, -1),
            rows[:, _ROW].astype(np.int64).reshape(m, -1),
            self._parameters[slots, : self._n_parameters].reshape(m, size, self._n_parameters),
            self._t[index].reshape(m, size, k),
            rows.view("<i8")[:, _SIMULATION].reshape(m, -1),
            (step[:, None] + self._offsets).reshape(m, size, k),
        )
        pieces = zip(*(torch.from_numpy(column).unbind() for column in columns))
        places, generations = self._table.places(slots), group.generations.tobytes()
        promises, begin = [], 0
        for i, (steps, row, parameters, t, simulation, own_steps) in enumerate(pieces):
            end = begin + size
            promises.append(
                Promise(
                    group.epoch, group.first + i, group.samples[begin:end],
                    generations[4 * begin : 4 * end], places[begin:end], group.n_first[i],
                    steps, row, Batch(parameters, t, {}, simulation, own_steps, {}),
                )
            )  # fmt: skip
            begin = end
        return promises

    def gather(self, promise: Promise, number: int) -> Batch | None:
        """Batch `number`, or None when one of its slots was given to another segment before."""
        batch, index = promise.batch, promise.index
        if self._patches is not None:
            batch = self._cut(promise, number, self._patches)
            return self._arrived(batch, promise)
        for name, flat in self._steps:
            batch.fields[name] = self._select(flat, index)
        if self._window > 1:
            for name, flat in self._steps:
                shape = (-1, self._window, *flat.shape[1:])
                batch.fields[name] = batch.fields[name].view(shape)
        for name, array in self.inputs.items():
            batch.inputs[name] = self._select(array, promise.rows)
        return self._arrived(batch, promise)

    def _arrived(self, batch: Batch, promise: Promise) -> Batch | None:
        """The batch, if all that was selected is of the segments that were promised."""
        if self._copy is not None:
            batch = self._copy.bring(batch)
            self._copy.arrive()
        now = self._table.generations(promise.places)
        return batch if now.tobytes() == promise.generations else None

    def _cut(self, promise: Promise, number: int, patches: Patches) -> Batch:
        """Boxes of the fields that are cut, the others whole."""
        k, samples = self._window, len(promise.samples)
        origins = patches.origins(number, samples)
        boxes = patches.boxes(origins)
        fields, inputs = {}, {}
        for name, flat in self.fields.items():
            if name in patches.names:
                index = promise.index.tolist()
                own = self._boxes(flat, index, [box for box in boxes for _ in range(k)])
            else:
                own = self._select(flat, promise.index)
            fields[name] = own.view(samples, k, *own.shape[1:])
        for name, array in self.inputs.items():
            if name in patches.names:
                inputs[name] = self._boxes(array, promise.rows.tolist(), boxes)
            else:
                inputs[name] = self._select(array, promise.rows)
        return replace(
            promise.batch, fields=fields, inputs=inputs, origin=torch.from_numpy(origins)
        )

    def _boxes(self, values: Tensor, index: list[int], boxes: list[Box]) -> Tensor:
        shape = (len(index), *values[0][boxes[0]].shape)
        there = torch.empty(shape, dtype=values.dtype, pin_memory=self._copy is not None)
        for own, at, box in zip(there.numpy(), index, boxes):
            own[...] = values[at][box].numpy()
        return there if self._copy is None else self._copy.move(there)

    def _select(self, values: Tensor, index: Tensor) -> Tensor:
        if self._copy is None:
            return values.index_select(0, index)
        return self._copy.select(values, index)
