"""The frames of the data path, as WIRE.md defines them; used by clients and by receivers.

A message is a 64-byte little-endian header with a table of the fields that follow, and then one
frame of raw bytes a field. Nothing here is pickled or evaluated.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import numpy as np

MAGIC = b"PNST"
VERSION = 1
NO_TIME = math.nan

# magic, version, kind, n_fields | campaign | simulation | lease, step | part, n_parts, plan |
# geometry, flags | sequence | t
HEADER = struct.Struct("<4sBBHQQIIHHIIIQd")
FIELD = struct.Struct("<HBBIQ")  # field index, dtype code, flags, reserved, bytes
_GRANT = np.dtype([("lease", "<u4"), ("segments", "<u4")])
STEP = np.dtype([("step", "<u4"), ("reserved", "<u4"), ("t", "<f8")])  # of a BUNCH

HOLD = 1  # flag of an ACK: the shard cannot take more from this part at present
BORROWS = 2  # flag of an ACK: the shard reads this part's memory, which HELLO offered
OFFER = struct.Struct("<QIIQ32s")  # of a HELLO: pid, file descriptor, 0, bytes, token
ARENA = "penstock-arena"  # how the name of memory begins that is offered
LENT = 1  # flag of a row: its frame is u64, where in that memory the values are

ROLES = ("train", "validation", "test")  # the flags of an OPEN are an index into these

MAX_FIELDS = 255
MAX_PARTS = 65535


class Kind(IntEnum):
    """What a message on the data path says; below 16 from client to shard, from 16 on back."""

    HELLO = 1
    PLAN = 2
    OPEN = 3
    INPUT = 4
    PART = 5
    END = 6
    FAIL = 7
    PROBE = 8
    BYE = 9
    BUNCH = 10
    ACK = 16
    RESYNC = 17
    REFUSED = 18


class WireError(ValueError):
    """A frame that does not follow WIRE.md."""


_KINDS = {int(kind): kind for kind in Kind}

# Code 0 is reserved. The order is part of the protocol.
_DTYPES = ("", "<f4", "<f8", "<i4", "<i8", "|u1")
_CODES = {np.dtype(name): code for code, name in enumerate(_DTYPES) if name}


@lru_cache(maxsize=64)
def dtype_code(dtype: np.dtype) -> int:
    """The wire's code of a dtype; raises WireError for one that the wire does not carry."""
    code = _CODES.get(np.dtype(dtype).newbyteorder("<"))
    if code is None:
        known = ", ".join(np.dtype(name).name for name in _DTYPES if name)
        raise WireError(f"The wire carries {known}, and a field came as {np.dtype(dtype).name}.")
    return code


def code_dtype(code: int) -> np.dtype:
    """The dtype of a wire code; raises WireError for a code that does not exist."""
    if not 0 < code < len(_DTYPES):
        raise WireError(f"A frame names dtype code {code}; codes go from 1 to {len(_DTYPES) - 1}.")
    return np.dtype(_DTYPES[code])


class FieldEntry(NamedTuple):
    """One row of the field table: what the frame in the same place after the header holds."""

    field: int
    dtype: int
    n_bytes: int
    flags: int = 0


class Header(NamedTuple):
    """The fixed part of every message on the data path; zero where a kind has no use for it."""

    kind: Kind
    campaign: int = 0
    simulation: int = 0
    lease: int = 0
    step: int = 0
    part: int = 0
    n_parts: int = 1
    plan: int = 0
    geometry: int = 0
    flags: int = 0
    sequence: int = 0
    t: float = NO_TIME
    fields: tuple[FieldEntry, ...] = ()


def encode(header: Header) -> bytes:
    """Header and field table as one frame."""
    fields = header.fields
    if len(fields) > MAX_FIELDS:
        raise WireError(f"A message has {len(fields)} fields; {MAX_FIELDS} are allowed.")
    fixed = HEADER.pack(MAGIC, VERSION, header.kind, len(fields), *header[1:-1])
    return fixed + _encode_table(fields) if fields else fixed


def decode(frame: bytes | bytearray | memoryview) -> Header:
    """The inverse of encode; raises WireError when the frame is not one of this version."""
    if len(frame) < HEADER.size:
        raise WireError(f"A header has {HEADER.size} bytes or more; {len(frame)} came.")
    magic, version, kind, n_fields, *rest = HEADER.unpack_from(frame, 0)
    if magic != MAGIC:
        raise WireError("A frame does not begin with PNST: something else talks to this port.")
    if version != VERSION:
        raise WireError(f"A frame of protocol version {version} came; this side speaks {VERSION}.")
    if len(frame) != HEADER.size + n_fields * FIELD.size:
        raise WireError(f"A header that announces {n_fields} fields has {len(frame)} bytes.")
    known = _KINDS.get(kind)
    if known is None:
        raise WireError(f"A frame of unknown kind {kind} came.")
    fields = _decode_table(bytes(frame[HEADER.size :])) if n_fields else ()
    return Header._make((known, *rest, fields))


# All steps of a simulation have the same table: both directions are looked up, not made. A table
# that comes again is the same object, so that a receiver can check it once.
@lru_cache(maxsize=256)
def _encode_table(fields: tuple[FieldEntry, ...]) -> bytes:
    return b"".join(FIELD.pack(e.field, e.dtype, e.flags, 0, e.n_bytes) for e in fields)


@lru_cache(maxsize=256)
def _decode_table(table: bytes) -> tuple[FieldEntry, ...]:
    rows = FIELD.iter_unpack(table)
    return tuple(FieldEntry(field, dtype, size, flags) for field, dtype, flags, _, size in rows)


def n_bytes(header: Header) -> int:
    """The length of the header's frame."""
    return HEADER.size + FIELD.size * len(header.fields)


@lru_cache(maxsize=64)
def lent(fields: tuple[FieldEntry, ...]) -> tuple[FieldEntry, ...]:
    """The same table for values that stay where they are."""
    return tuple(entry._replace(flags=entry.flags | LENT) for entry in fields)


def steps_of(
    header: Header, numbers: bytes | memoryview, blocks: Sequence[bytes | memoryview]
) -> np.ndarray:
    """The steps (n,) of a BUNCH, STEP each; raises WireError for one that is not whole."""
    n = header.step
    if n < 1 or len(numbers) != n * STEP.itemsize:
        raise WireError(f"A bunch of {n} steps names {len(numbers) // STEP.itemsize} of them.")
    if [len(block) for block in blocks] != [n * entry.n_bytes for entry in header.fields]:
        raise WireError(f"The frames of a bunch of {n} steps are not as long as its header says.")
    return np.frombuffer(numbers, STEP)


def parts_of(
    header: Header, payloads: Sequence[bytes | memoryview]
) -> Iterator[tuple[Header, list[memoryview]]]:
    """The PART messages that a BUNCH stands for; raises WireError as `steps_of`."""
    numbers, *blocks = payloads or [b""]
    steps = steps_of(header, numbers, blocks)
    views = [memoryview(block) for block in blocks]
    fixed, rest, fields = header[1:4], header[5:11], header.fields
    sizes = [entry.n_bytes for entry in fields]
    for i, (step, _, t) in enumerate(steps.tolist()):
        one = Header(Kind.PART, *fixed, step, *rest, t, fields)
        yield one, [view[i * size : (i + 1) * size] for view, size in zip(views, sizes)]


def encode_grants(grants: Sequence[tuple[int, int]]) -> bytes:
    """(lease, segments granted in total) pairs, the second frame of an ACK."""
    return np.array(list(grants), dtype=_GRANT).tobytes()


def decode_grants(frame: bytes) -> list[tuple[int, int]]:
    """The inverse of encode_grants; raises WireError for a truncated frame."""
    if len(frame) % _GRANT.itemsize:
        raise WireError(f"A frame of grants has {len(frame)} bytes, not a multiple of 8.")
    return [(int(lease), int(segments)) for lease, segments in np.frombuffer(frame, _GRANT)]
