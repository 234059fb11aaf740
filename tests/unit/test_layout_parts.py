"""Layouts: the parts of any partition, put together by their plans, are the field as wanted."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import LayoutError
from penstock.layout import FieldSpec, Share, share, whole
from penstock_server.plans import covers, read_target
from penstock_server.tables import FieldSpec as ServerFieldSpec

Draw = st.DrawFn


def picked(own: Share, values: np.ndarray, spec: FieldSpec) -> np.ndarray:
    return own.pick(values).astype(spec.dtype)


@st.composite
def specs(draw: Draw, components: bool = True) -> FieldSpec:
    """A field of 1 to 3 axes with any crop, stride and choice of components."""
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    crop: list[tuple[int, int]] = []
    stride: list[int] = []
    if draw(st.booleans()):
        for size in shape:
            start = draw(st.integers(0, size - 1))
            crop.append((start, draw(st.integers(start + 1, size))))
    if draw(st.booleans()):
        stride = [draw(st.integers(1, 3)) for _ in shape]
    keep: list[int] = []
    if components and len(shape) > 1 and draw(st.booleans()):
        some = st.sampled_from(range(shape[-1]))
        keep = draw(st.lists(some, min_size=1, unique=True))
    return FieldSpec(
        "u", 0, shape, np.dtype("float32"), crop=tuple(crop), stride=tuple(stride),
        keep_components=tuple(keep),
    )  # fmt: skip


def wanted(spec: FieldSpec, field: np.ndarray) -> np.ndarray:
    """field[crop][::stride][components], by plain slicing."""
    for axis, (start, stop) in enumerate(spec.crop):
        if not (axis == len(spec.shape) - 1 and spec.keep_components):
            field = np.take(field, np.arange(start, stop), axis)
    for axis, step in enumerate(spec.stride):
        if not (axis == len(spec.shape) - 1 and spec.keep_components):
            field = np.take(field, np.arange(0, field.shape[axis], step), axis)
    return field[..., list(spec.keep_components)] if spec.keep_components else field


def global_field(spec: FieldSpec) -> np.ndarray:
    return np.arange(1, 1 + np.prod(spec.shape), dtype="f8").reshape(spec.shape)


def reassemble(spec: FieldSpec, parts: list[tuple[Share, np.ndarray]]) -> np.ndarray:
    """What a shard makes of the parts: their plans through the receiver's own reader."""
    slot = np.full(spec.sent_shape, np.nan, dtype=spec.dtype)
    targets = []
    for own, values in parts:
        target = read_target("u", spec.sent_shape, own.plan.tobytes())
        payload = np.frombuffer(picked(own, values, spec).tobytes(), dtype=spec.dtype)
        assert target.n == payload.size
        target.scatter(payload, slot)
        np.testing.assert_array_equal(target.gather(slot), payload)
        if target.first is not None and target.n:
            flat = slot.reshape(-1)[target.first : target.first + target.n]
            np.testing.assert_array_equal(flat, payload)
        targets.append(target)
    assert covers(spec.sent_shape, targets) is None
    return slot


@settings(max_examples=150, deadline=None)
@given(specs())
def test_a_lone_rank_sends_the_field_as_it_is_wanted(spec: FieldSpec) -> None:
    field = global_field(spec)
    expected = wanted(spec, field)
    assert spec.sent_shape == expected.shape
    own = whole(spec)
    np.testing.assert_array_equal(own.pick(field), expected)
    np.testing.assert_array_equal(reassemble(spec, [(own, field)]), expected)


@settings(max_examples=150, deadline=None)
@given(specs(components=False), st.data())
def test_boxes_of_any_partition_reassemble_to_the_field(
    spec: FieldSpec, data: st.DataObject
) -> None:
    field = global_field(spec)
    cuts = [
        sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=2))})
        for size in spec.shape
    ]
    boxes: list[tuple[slice, ...]] = [()]
    for axis in cuts:
        boxes = [(*box, slice(a, b)) for box in boxes for a, b in pairwise(axis)]
    parts = [(share(spec, box), field[box]) for box in boxes]
    np.testing.assert_array_equal(reassemble(spec, parts), wanted(spec, field))


@settings(max_examples=150, deadline=None)
@given(specs(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_indices_of_any_partition_reassemble_to_the_field(
    spec: FieldSpec, n_ranks: int, random: object
) -> None:
    field = global_field(spec)
    rng = np.random.default_rng(random.randrange(2**32))  # type: ignore[attr-defined]
    owner = rng.integers(0, n_ranks, field.size)
    parts = []
    for rank in range(n_ranks):
        flat = rng.permutation(np.flatnonzero(owner == rank))
        parts.append((share(spec, flat), field.reshape(-1)[flat]))
    np.testing.assert_array_equal(reassemble(spec, parts), wanted(spec, field))


@settings(max_examples=60, deadline=None)
@given(specs(), st.data())
def test_ranks_that_own_all_components_may_send_them_in_any_order(
    spec: FieldSpec, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, spec.shape[0]))
    if len(spec.shape) == 1:
        return
    field = global_field(spec)
    rest = tuple(slice(None) for _ in spec.shape[1:])
    boxes = [(slice(0, cut), *rest), (slice(cut, spec.shape[0]), *rest)]
    parts = [(share(spec, box), field[box]) for box in boxes]
    np.testing.assert_array_equal(reassemble(spec, parts), wanted(spec, field))


def test_swapped_components_are_sent_swapped() -> None:
    """All components are kept, so the shapes agree; the order still differs."""
    spec = FieldSpec("u", 0, (2, 2), np.dtype("f4"), keep_components=(1, 0))
    field = np.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(picked(whole(spec), field, spec), [[2, 1], [4, 3]])


def test_what_is_sent_is_a_copy_of_the_declared_dtype() -> None:
    spec = FieldSpec("u", 0, (4,), np.dtype("float32"))
    field = np.linspace(0.0, 1.0, 4)
    payload = picked(whole(spec), field, spec)
    field[:] = -1.0
    assert payload.dtype == np.float32
    np.testing.assert_allclose(payload, np.linspace(0.0, 1.0, 4), rtol=1e-7)


def test_a_scalar_field_has_a_layout_too() -> None:
    spec = FieldSpec("total", 0, (), np.dtype("float64"))
    own = whole(spec)
    assert picked(own, np.array(2.5), spec).tobytes() == np.float64(2.5).tobytes()
    target = read_target("total", (), own.plan.tobytes())
    assert (target.n, target.first, covers((), [target])) == (1, 0, None)


def test_a_box_with_a_wrong_number_of_axes_is_refused() -> None:
    with pytest.raises(LayoutError, match="names 1 axes; the campaign declares the shape"):
        share(FieldSpec("u", 0, (4, 4), np.dtype("f4")), (slice(None),))


def test_a_box_with_a_step_is_refused() -> None:
    with pytest.raises(LayoutError, match="slices of step 1 are expected"):
        share(FieldSpec("u", 0, (4,), np.dtype("f4")), (slice(0, 4, 2),))


@pytest.mark.parametrize("wrong", [-1, 12])
def test_an_index_outside_the_field_is_refused_by_its_number(wrong: int) -> None:
    spec = FieldSpec("u", 0, (3, 4), np.dtype("f4"))
    with pytest.raises(LayoutError, match=f"owns index {wrong}; .* indices go from 0 to 11"):
        share(spec, np.array([0, wrong, 5]))


def test_components_out_of_order_need_a_rank_that_owns_them_together() -> None:
    spec = FieldSpec("u", 0, (2, 3), np.dtype("f4"), keep_components=(2, 0, 1))
    with pytest.raises(LayoutError, match="not contiguous in what this rank owns"):
        share(spec, (slice(None), slice(1, 3)))


def test_a_welcome_with_keys_of_a_newer_server_is_read() -> None:
    body = {"shape": [4, 2], "dtype": "float64", "unit": "K", "from_the_future": 1, "crop": None}
    spec = FieldSpec.from_dict("u", 3, body)
    assert (spec.shape, spec.dtype, spec.index) == ((4, 2), np.dtype("f8"), 3)
    assert not spec.reduced


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_client_and_server_agree_on_what_is_sent(data: st.DataObject) -> None:
    """Slots are sized from the campaign file, messages from the welcome."""
    grid = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    table: dict[str, object] = {"shape": grid}
    if data.draw(st.booleans()):
        crop: list[tuple[int, int]] = []
        table["crop"] = crop
        for size in grid:
            start = data.draw(st.integers(0, size - 1))
            crop.append((start, data.draw(st.integers(start + 1, size))))
    if data.draw(st.booleans()):
        table["stride"] = [data.draw(st.integers(1, min(3, size))) for size in grid]
    if data.draw(st.booleans()):
        n = data.draw(st.integers(2, 4))
        table |= {"shape": [*grid, n], "components": n}
        if data.draw(st.booleans()):
            some = st.lists(st.integers(0, n - 1), min_size=1, unique=True)
            table["keep_components"] = data.draw(some)
    server = ServerFieldSpec.model_validate(table)
    client = FieldSpec.from_dict("u", 0, server.model_dump(mode="json"))
    assert client.sent_shape == server.sent_shape
