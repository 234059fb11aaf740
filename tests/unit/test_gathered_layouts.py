"""What rank 0 sends for all: the shares of any partition, one after the other, are the field."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layout_parts import global_field, picked, specs, wanted

from penstock.gathering import together
from penstock.layout import BOX, INDEX, FieldSpec, Share, share
from penstock_server.plans import PlanError, Target, covers, read_target

U = FieldSpec("u", 0, (6, 4), np.dtype("float32"))


def target_of(spec: FieldSpec, own: Share) -> Target:
    """The plan through the receiver's own reader."""
    return read_target("u", spec.sent_shape, own.plan.tobytes())


def assemble(spec: FieldSpec, parts: list[tuple[Share, np.ndarray]]) -> np.ndarray:
    """What a shard makes of what rank 0 sends."""
    whole = together(spec, [own.plan for own, _ in parts])
    payload = np.concatenate([picked(own, values, spec).reshape(-1) for own, values in parts])
    assert payload.size == whole.n_values
    slot = np.full(spec.sent_shape, np.nan, dtype=spec.dtype)
    target = target_of(spec, whole)
    target.scatter(payload, slot)
    assert covers(spec.sent_shape, [target]) is None
    return slot


@settings(max_examples=150, deadline=None)
@given(specs(components=False), st.data())
def test_boxes_of_any_partition_are_the_field(spec: FieldSpec, data: st.DataObject) -> None:
    field = global_field(spec)
    cuts = [
        sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=2))})
        for size in spec.shape
    ]
    boxes: list[tuple[slice, ...]] = [()]
    for axis in cuts:
        boxes = [(*box, slice(a, b)) for box in boxes for a, b in pairwise(axis)]
    boxes = data.draw(st.permutations(boxes))
    parts = [(share(spec, box), field[box]) for box in boxes]
    np.testing.assert_array_equal(assemble(spec, parts), wanted(spec, field))


@settings(max_examples=100, deadline=None)
@given(specs(), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_indices_of_any_partition_are_the_field(spec: FieldSpec, size: int, seed: int) -> None:
    field, rng = global_field(spec), np.random.default_rng(seed)
    owned = np.array_split(rng.permutation(field.size), size)
    parts = [(share(spec, flat), field.reshape(-1)[flat]) for flat in owned]
    np.testing.assert_array_equal(assemble(spec, parts), wanted(spec, field))


@settings(max_examples=100, deadline=None)
@given(specs(components=False), st.integers(1, 9))
def test_slabs_in_the_order_of_the_ranks_are_received_in_place(spec: FieldSpec, size: int) -> None:
    """Some of them may be empty, or have nothing that is wanted."""
    cuts = np.linspace(0, spec.shape[0], size + 1).astype(int).tolist()
    rest = [slice(None)] * (len(spec.shape) - 1)
    own = together(spec, [share(spec, (slice(a, b), *rest)).plan for a, b in pairwise(cuts)])
    assert own.plan[0] == BOX
    assert target_of(spec, own).first == 0


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([slice(0, 2), slice(3, 6)], "4 of 24 values belong to no part"),
        ([slice(3, 6), slice(0, 3)], None),  # whole, and not in its order
    ],
)
def test_what_is_no_field_in_its_order_has_indices(rows: list[slice], why: str | None) -> None:
    own = together(U, [share(U, (each, slice(None))).plan for each in rows])
    assert own.plan[0] == INDEX
    assert covers(U.sent_shape, [target_of(U, own)]) == why


def test_an_overlap_is_left_for_the_shard_to_refuse() -> None:
    own = together(U, [share(U, (each, slice(None))).plan for each in (slice(0, 4), slice(3, 6))])
    with pytest.raises(PlanError, match="names an index twice"):
        target_of(U, own)


def test_one_number_is_the_share_of_one_rank() -> None:
    total = FieldSpec("total", 0, (), np.dtype("float64"))
    own = together(total, [share(total, np.arange(n)).plan for n in (0, 1, 0)])
    assert (own.owned_shape, target_of(total, own).first) == ((), 0)
