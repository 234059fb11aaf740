"""The checksums of what stands in a run's data set, as the shards take them; `reading` calls it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from penstock_server.audit.tables import STORED, Array
from penstock_server.dataset import DataSet, DataSetError, Group


def stored_checksums(path: Path, fields: Sequence[str], segment_steps: int) -> Array:
    """Rows of STORED of every segment that is there as a whole; reads the file once.

    fields: those of every step, in the campaign's order. Raises ValueError when it is damaged.
    """
    try:
        groups = list(DataSet(path).roles.values())
        found = [row for group in groups for row in _segments(group, fields, segment_steps)]
    except (DataSetError, KeyError) as error:
        raise ValueError(str(error)) from error
    return np.array(found, STORED)


def _segments(group: Group, fields: Sequence[str], length: int) -> list[tuple[int, int, int]]:
    found = []
    for row in np.flatnonzero(group.simulation >= 0).tolist():
        stored = group.stored[row] != 0
        end = int(group.n_steps[row])
        n = end if end >= 0 else len(stored)
        for segment in range(-(-n // length)):
            steps = slice(segment * length, min((segment + 1) * length, n))
            if end < 0 and steps.stop - steps.start < length:
                continue  # it may have more steps than the file has room for
            if stored[steps].all():
                crc = 0
                for name in fields:
                    crc = zlib.crc32(group.fields[name][row, steps].tobytes(), crc)
                found.append((int(group.simulation[row]), segment, crc))
    return found
