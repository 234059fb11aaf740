"""The checks at a shard's door: what a message says against what the campaign declares; pure.

A refusal is an answer, not a failure: the intake sends it to the client and to the coordinator.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock import wire
from penstock.wire import Header
from penstock_server.plans import Plan, PlanError, Target, read_target
from penstock_server.refusals import RefusalKind
from penstock_server.slab import SlabSpec

Array = npt.NDArray[Any]

PIECE_BYTES = 1 << 20  # looked at and copied before the next


@dataclass(eq=False)
class Refusal(Exception):
    """Why a message is not taken; `kind` decides what the coordinator does about it."""

    kind: RefusalKind
    reason: str
    field: str = ""


class Door:
    """Knows the campaign's fields and the kind of the shard, and nothing of what came before."""

    def __init__(
        self, spec: SlabSpec, names: list[str], held_out: bool, most_simulations: float = math.inf
    ) -> None:
        self._spec, self._names, self._held_out = spec, names, held_out
        self._most_simulations = most_simulations
        both = {**spec.fields, **spec.inputs}
        self._dtypes = {name: np.dtype(dtype) for name, (_, dtype) in both.items()}
        self._codes = {name: wire.dtype_code(dtype) for name, dtype in self._dtypes.items()}

    def check_open(self, header: Header, parameters: bytes) -> None:
        """Raises Refusal for an OPEN that cannot be of this campaign or this shard."""
        if len(parameters) != 8 * self._spec.n_parameters:
            raise Refusal("shape", f"OPEN carries {len(parameters)} bytes of parameters; "
                          f"{8 * self._spec.n_parameters} are expected.")  # fmt: skip
        if header.simulation >= self._most_simulations:
            raise Refusal("unplanned", f"OPEN names simulation {header.simulation}; there can be "
                          f"{self._most_simulations:.0f} of them, from 0.")  # fmt: skip
        if header.flags >= len(wire.ROLES):
            raise Refusal("role", f"OPEN names role {header.flags}; 0 to 2 exist.")
        if (header.flags > 0) != self._held_out:
            raise Refusal(
                "role",
                f"A {wire.ROLES[header.flags]} simulation came to the wrong "
                "kind of shard: held-out data never mixes with training data.",
            )
        if not header.part < header.n_parts <= self._spec.max_parts:
            raise Refusal("layout", f"Part {header.part} of {header.n_parts} came; this campaign "
                          f"allows {self._spec.max_parts} parts.")  # fmt: skip
        if header.step >= max(1, header.geometry) or not header.lease:
            raise Refusal("layout", f"OPEN names shard {header.step} of {header.geometry}, lease "
                          f"{header.lease}; shards count from 0, leases from 1.")  # fmt: skip

    def check_table(
        self, header: Header, targets: Mapping[int, Target], inputs: bool = False
    ) -> None:
        """Raises Refusal unless the field table is that of a step, or of the input fields."""
        group = self._spec.inputs if inputs else self._spec.fields
        if len(header.fields) != len(group):
            raise Refusal("undeclared", f"A message carries {len(header.fields)} fields; the "
                          f"campaign declares {', '.join(group)}.")  # fmt: skip
        seen = set()
        for entry in header.fields:
            name = self._names[entry.field] if entry.field < len(self._names) else None
            if name not in group or entry.field in seen:
                raise Refusal("undeclared", f"Field number {entry.field} is not expected here; the "
                              f"campaign declares {', '.join(group)}.")  # fmt: skip
            seen.add(entry.field)
            dtype, target = self._dtypes[name], targets[entry.field]
            expected = target.n * dtype.itemsize
            code = self._codes[name]
            if entry.dtype != code or entry.n_bytes != expected:
                raise Refusal("shape", f"Field {name!r} came with dtype code {entry.dtype} and "
                              f"{entry.n_bytes} bytes; {code} ({dtype.name}) and {expected} "
                              "are expected.", name)  # fmt: skip


def finite(values: Array) -> bool:
    """A scalar product with itself is finite only if all values are; it may overflow, then look.

    At a third of the cost of a sum, which is one of the larger costs of a part.
    """
    if values.dtype.kind != "f":
        return True
    # vdot, as dot looks for an overflow and warns of it.
    return math.isfinite(np.vdot(values, values)) or bool(np.isfinite(values).all())


def copy_finite(there: Array, values: Array) -> bool:
    """Copies (n,) values; False, and perhaps not all of them, if one is not finite.

    They are looked at while the processor's cache has them. So are values that are lent: a client
    that writes to them before they are acknowledged tears the step, finite or not.
    """
    n = PIECE_BYTES // values.itemsize
    for at in range(0, len(values), n):
        piece = values[at : at + n]
        if not finite(piece):
            return False
        there[at : at + n] = piece
    return True


def close(old: Array, new: Array) -> bool:
    """Equal as far as two runs of one solver are: 1e-4 relative, 1e-5 of the largest value."""
    scale = float(np.max(np.abs(old), initial=0.0))
    return np.allclose(old, new, rtol=1e-4, atol=1e-5 * scale)


def read_plan(names: Iterable[str], shapes: Mapping[str, tuple[int, ...]], header: Header,
              payloads: list[bytes]) -> Plan:  # fmt: skip
    """Decodes a PLAN message; raises Refusal for one that does not fit the campaign."""
    order = list(names)
    if [e.field for e in header.fields] != list(range(len(order))) or len(payloads) != len(order):
        raise Refusal("layout", f"A plan covers every field in order: {', '.join(order)}.")
    try:
        targets = {i: read_target(n, shapes[n], payloads[i]) for i, n in enumerate(order)}
    except PlanError as error:
        raise Refusal("layout", str(error)) from error
    return Plan(targets, hashlib.blake2b(b"".join(payloads), digest_size=16).digest())
