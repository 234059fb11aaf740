"""The memory of a shard: one preallocated array per field, mapped by receiver, rank and validator.

Every array is a file of its own in a tmpfs folder. The pages are allocated (posix_fallocate, so
that full memory is an error here and never a bus error later) and touched once at creation. Only
the receiver writes (but for `kept`); whoever reads checks the slot's generation before and after.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock_server.json_file import write_json

Array = npt.NDArray[Any]

FREE, OPEN, COMMITTED = 0, 1, 2

DESCRIPTOR = np.dtype(
    [
        ("ordinal", "<u8"),  # order of admission in this shard, from 1
        ("simulation", "<u8"),
        ("state", "<u4"),
        ("generation", "<u4"),  # odd while the content changes
        ("lease", "<u4"),
        ("segment", "<u4"),
        ("n_steps", "<u4"),  # steps that the slot holds; below L at a simulation's end
        ("n_parts", "<u4"),
        ("row", "<u4"),  # of the input arrays
        ("checksum", "<u4"),
        ("role", "<u4"),  # index into wire.ROLES
        ("reserved", "<u4"),
    ]
)


# The shard's counts as its rank reads them, all in samples unless said otherwise.
BOOKS = (
    "snapshot",  # batch of the newest snapshot
    "admitted",
    "stored",
    "unseen",
    "capacity",
    "complete_simulations",
    "blocked",
    "pressure",
    "over",
    "incarnation",  # another number for every receiver that ran this shard
    "noted",  # the rank's newest report of draws that are marked; read last, so never before unseen
)
# The first and the last are written where it happens, the others at the end of a turn.
SNAPSHOT, INCARNATION, NOTED = map(BOOKS.index, ("snapshot", "incarnation", "noted"))


class SlabError(RuntimeError):
    """The slab's memory cannot be had, or does not fit its description."""


@dataclass(frozen=True)
class SlabSpec:
    """What a shard's memory holds; the same description in every process.

    fields and inputs map a name to (shape, dtype name); a slot holds `segment_steps` steps.
    """

    n_slots: int
    segment_steps: int
    window: int
    n_parameters: int
    fields: dict[str, tuple[tuple[int, ...], str]]
    inputs: dict[str, tuple[tuple[int, ...], str]]
    n_rows: int
    max_parts: int
    stride: int = 1

    @property
    def span(self) -> int:
        """Steps from the first to the last of a sample: `window` of them, `stride` apart."""
        return (self.window - 1) * self.stride + 1

    @property
    def windows(self) -> int:
        """Samples in a full slot: starts from which all steps of a sample are there."""
        return self.segment_steps - self.span + 1

    def arrays(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and dtype of every file of the slab."""
        n, steps = self.n_slots, self.segment_steps
        words = -(-self.max_parts // 64)
        layout: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            "descriptor": ((n,), DESCRIPTOR),
            "parts": ((n, steps, words), np.dtype("<u8")),
            "drawn": ((n, self.windows), np.dtype("<u4")),  # batch of the first draw; 0: unseen
            "books": ((len(BOOKS),), np.dtype("<u8")),
            "kept": ((1,), np.dtype("<u8")),  # the keeper's: ordinals up to here are stored
            "t": ((n, steps), np.dtype("<f8")),
            "parameters": ((n, max(1, self.n_parameters)), np.dtype("<f8")),
        }
        for name, (shape, dtype) in self.fields.items():
            layout[f"field.{name}"] = ((n, steps, *shape), np.dtype(dtype))
        for name, (shape, dtype) in self.inputs.items():
            layout[f"input.{name}"] = ((self.n_rows, *shape), np.dtype(dtype))
        return layout

    @property
    def n_bytes(self) -> int:
        return sum(_n_bytes(shape, dtype) for shape, dtype in self.arrays().values())


class Slab:
    """The mapped arrays of a shard; make one with `create` or `attach`."""

    def __init__(self, folder: Path, spec: SlabSpec, arrays: dict[str, Array]) -> None:
        self.folder = folder
        self.spec = spec
        self.descriptor = arrays["descriptor"]
        self.parts = arrays["parts"]
        self.drawn = arrays["drawn"]
        self.books = arrays["books"]
        self.kept = arrays["kept"]
        self.t = arrays["t"]
        self.parameters = arrays["parameters"]
        self.fields = {name: arrays[f"field.{name}"] for name in spec.fields}
        self.inputs = {name: arrays[f"input.{name}"] for name in spec.inputs}

    @classmethod
    def create(cls, folder: Path, spec: SlabSpec) -> Slab:
        """Allocates the slab; raises SlabError with the arithmetic when memory does not suffice."""
        folder.mkdir(parents=True, exist_ok=True)
        room = shutil.disk_usage(folder).free
        if spec.n_bytes > room:
            raise SlabError(
                f"The reservoir needs {spec.n_bytes / 1e6:.0f} MB ({spec.n_slots} slots of "
                f"{spec.n_bytes // max(1, spec.n_slots)} bytes) in {folder}, which has "
                f"{room / 1e6:.0f} MB free. Lower reservoir.capacity, or enlarge /dev/shm."
            )
        arrays = {}
        for name, (shape, dtype) in spec.arrays().items():
            path = folder / name
            path.unlink(missing_ok=True)  # of a receiver that died before its slab was whole
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, _n_bytes(shape, dtype))
            except OSError as error:
                raise SlabError(
                    f"{path} cannot be allocated: {error}. Lower reservoir.capacity."
                ) from error
            finally:
                os.close(descriptor)
            arrays[name] = _map(path, shape, dtype, writable=True)
        write_json(folder / "slab.json", asdict(spec))  # last: the slab is whole
        return cls(folder, spec, arrays)

    @classmethod
    def attach(cls, folder: Path, writable: bool = False) -> Slab:
        """Maps a slab that exists; raises SlabError when there is none."""
        try:
            body = json.loads((folder / "slab.json").read_text())
        except OSError as error:
            raise SlabError(f"There is no slab in {folder}: {error}.") from error
        for key in ("fields", "inputs"):
            body[key] = {name: (tuple(shape), dtype) for name, (shape, dtype) in body[key].items()}
        spec = SlabSpec(**body)
        arrays = {
            name: _map(folder / name, shape, dtype, writable)
            for name, (shape, dtype) in spec.arrays().items()
        }
        return cls(folder, spec, arrays)


def exists(folder: Path) -> bool:
    """Whether a whole slab stands in the folder."""
    return (folder / "slab.json").exists()


def _map(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], writable: bool) -> Array:
    flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    descriptor = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
    try:
        memory = mmap.mmap(descriptor, _n_bytes(shape, dtype), flags, access)
    finally:
        os.close(descriptor)
    count = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(memory, dtype=dtype, count=count).reshape(shape)


def _n_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return max(8, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
