"""A slab that a test writes as a receiver does, and groups as a rank hears of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import numpy as np

from penstock_server.descriptors import Descriptors
from penstock_server.feed_messages import Group
from penstock_server.slab import Slab, SlabSpec


class Writer:
    """Writes segments into slots as a receiver does; all numbers of a segment follow from one."""

    def __init__(self, slab: Slab) -> None:
        self.slab, self._descriptors = slab, Descriptors(slab.descriptor)

    def write(self, slot: int, number: int) -> None:
        slab = self.slab
        self._descriptors.begin(slot, number, number, 1, 0, 1, slot)
        slab.parameters[slot] = number
        slab.inputs["k"][slot] = number
        for step in range(slab.spec.segment_steps):
            slab.fields["u"][slot, step] = self.step(number, step)
            slab.t[slot, step] = self.step(number, step)
        self._descriptors.open(slot)
        self._descriptors.commit(slot, slab.spec.segment_steps, number, 0)

    def step(self, number: int, step: int) -> int:
        return number * self.slab.spec.segment_steps + step


def make(
    folder: Path, steps: int, window: int, n_slots: int = 12, values: int = 5, stride: int = 1
) -> Writer:
    fields, inputs = {"u": ((values, 2), "float64")}, {"k": ((values,), "float64")}
    spec = SlabSpec(n_slots, steps, window, 2, fields, inputs, n_slots, 1, stride)
    writer = Writer(Slab.create(folder / "slab", spec))
    for slot in range(n_slots):
        writer.write(slot, 100 + slot)
    return writer


def group(slab: Slab, samples: np.ndarray, size: int) -> Group:
    generations = slab.descriptor["generation"][samples // slab.spec.windows]
    return Group(1, 7, size, samples, generations, list(range(len(samples) // size)))


@contextmanager
def being_rewritten(writer: Writer) -> Iterator[None]:
    """A thread writes other segments into its slots, one after the other."""
    over = Event()

    def rewrite() -> None:
        rng, number = np.random.default_rng(0), 1000
        while not over.is_set():
            number += 1
            writer.write(int(rng.integers(writer.slab.spec.n_slots)), number)
            over.wait(rng.choice([0.0, 0.0, 0.001]))

    thread = Thread(target=rewrite)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
