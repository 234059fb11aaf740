"""What the shards of a link know of its layout: one plan for all fields; owned by the link.

The steps of a simulation name the plan that its OPEN named. So a plan that was superseded is
withdrawn once no open simulation names it, and even then it is announced after a RESYNC for as long
as something that was said under it is not acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from penstock.layout import FieldSpec, Share
from penstock.sender import Sender
from penstock.wire import FieldEntry, Header, Kind, dtype_code


class Plans:
    """The present plan, its `number` (from 1), and where it has been announced."""

    def __init__(self) -> None:
        self.number = 0
        self._message: tuple[Header, list[np.ndarray]] | None = None
        self._told: dict[str, Sender] = {}  # by shard
        self._superseded: list[tuple[Sender, int]] = []

    @property
    def up_to_date(self) -> bool:
        """Whether the layout has not changed since `renew`."""
        return self._message is not None

    def forget(self) -> None:
        """The layout has changed: the next simulation needs another plan."""
        self._message = None

    def renew(
        self, identity: Header, specs: Iterable[FieldSpec], shares: Mapping[str, Share]
    ) -> None:
        """Puts the layout as it is now under the next number; nobody is told yet."""
        self._superseded += [(sender, self.number) for sender in self._told.values()]
        self._told.clear()
        self.number += 1
        payloads = [(spec.index, shares[spec.name].plan) for spec in specs]
        table = tuple(FieldEntry(i, dtype_code(plan.dtype), plan.nbytes) for i, plan in payloads)
        header = identity._replace(kind=Kind.PLAN, plan=self.number, fields=table)
        self._message = header, [plan for _, plan in payloads]

    def tell(self, senders: Sequence[Sender]) -> None:
        """Announces the plan to the shards that do not know it."""
        assert self._message is not None
        for sender in senders:
            if sender.shard not in self._told:
                self._told[sender.shard] = sender
                sender.announce(("plan", self.number), *self._message)

    def withdraw(self) -> None:
        """No open simulation names an older plan than the present one."""
        for sender, number in self._superseded:
            sender.withdraw(("plan", number))
        self._superseded.clear()
