"""Which row of the input arrays belongs to which simulation, and until when; owned by the shard."""

from __future__ import annotations

from collections import Counter


class InputRows:
    """A row belongs to one simulation over all its attempts, until nothing needs it any more.

    Users of a row are the simulation's stream and every slot of it. A settled row stands behind
    an admitted segment: another attempt may compare with it and not write it.
    """

    def __init__(self, n_rows: int) -> None:
        self._free = set(range(n_rows))
        self._row_of: dict[int, int] = {}
        self._owner: dict[int, int] = {}
        self._uses: Counter[int] = Counter()
        self._settled: set[int] = set()

    def take(self, simulation: int) -> int | None:
        """The simulation's row, or a new one; None when there is none left."""
        row = self._row_of.get(simulation)
        if row is None:
            if not self._free:
                return None
            row = next(iter(self._free))
        self.use(simulation, row)
        return row

    def use(self, simulation: int, row: int) -> None:
        """One more user; after a restart, rows that slots name are claimed with this."""
        self._free.discard(row)
        self._row_of[simulation], self._owner[row] = row, simulation
        self._uses[row] += 1

    def unuse(self, row: int) -> None:
        """One user less; the last one gives the row back."""
        self._uses[row] -= 1
        if self._uses[row] <= 0:
            del self._uses[row]
            self._settled.discard(row)
            simulation = self._owner.pop(row)
            if self._row_of.get(simulation) == row:
                del self._row_of[simulation]
            self._free.add(row)

    def settle(self, row: int) -> None:
        """An admitted segment refers to the row: its content is final."""
        self._settled.add(row)

    def settled(self, row: int) -> bool:
        return row in self._settled

    @property
    def n_free(self) -> int:
        """Rows that nothing needs; the rehearsal of a shard looks for lost ones."""
        return len(self._free)
