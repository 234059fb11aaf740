"""What is copied into the reservoir is looked at on the way, in pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server import door
from penstock_server.door import copy_finite


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@given(
    n=st.integers(1, 40),
    bad=st.none() | st.sampled_from([np.nan, np.inf, -np.inf]),
    place=st.floats(0, 1, exclude_max=True),
)
def test_a_copy_is_whole_unless_a_value_is_not_finite(
    dtype: str, n: int, bad: float | None, place: float
) -> None:
    values, there = np.arange(n).astype(dtype), np.full(n, -1, dtype)
    if bad is not None and dtype != "int32":
        values[int(n * place)] = bad
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(door, "PIECE_BYTES", 32)
        all_finite = copy_finite(there, values)
    assert all_finite == np.isfinite(values).all()
    if all_finite:
        np.testing.assert_array_equal(there, values)


def test_values_that_overflow_when_they_are_squared_are_finite() -> None:
    values = np.full(10, 1e30, "float32")
    assert copy_finite(np.zeros(10, "float32"), values)
