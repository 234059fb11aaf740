"""Moments and Normalisation: joined over ranks, frozen, safe for fields that do not vary."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_surrogates import (
    Batch,
    Field,
    Moments,
    Normalisation,
    Parameter,
    Problem,
    add_moments,
)

PROBLEM = Problem(
    parameters=(
        Parameter("T0", 100, 500),
        Parameter("k", 1e-3, 1.0, "log-uniform"),
        Parameter("fixed", 7, 7),
    ),
    fields={"temperature": Field((4, 3)), "flow": Field((4, 2), components=2)},
    inputs={"a.b": Field((5,), role="input")},
)


def moments_of(seed: int) -> dict[str, Moments]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "t": Moments.of(torch.tensor([[0.5], [2.5]])),
        "temperature": Moments.of(300 + 50 * torch.randn(9, 1, 4, 3, generator=generator)),
        "flow": Moments.of(torch.randn(9, 1, 4, 2, generator=generator), components=2),
        "a.b": Moments.of(torch.rand(9, 5, generator=generator)),
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 20), st.integers(0, 20), st.floats(-1e6, 1e6))
def test_moments_of_parts_add_up_to_the_moments_of_the_whole(n: int, m: int, centre: float) -> None:
    values = centre + torch.randn(n + m, 3, 2, dtype=torch.float64)
    joined = Moments.of(values[:n], 2) + Moments.of(values[n:], 2)
    whole = Moments.of(values, 2)
    assert joined.count == whole.count == 3 * (n + m)
    torch.testing.assert_close(joined.mean, whole.mean)
    torch.testing.assert_close(joined.deviations, whole.deviations, rtol=1e-7, atol=1e-7)
    assert torch.equal(joined.low, whole.low)
    assert torch.equal(joined.high, whole.high)


def test_moments_keep_a_small_variance_at_a_large_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    values = 101325 + 1e-4 * torch.randn(10000, dtype=torch.float64, generator=generator)
    total = Moments.none()
    for part in torch.chunk(values, 100):
        total = total + Moments.of(part)
    torch.testing.assert_close(
        total.variance, values.var(correction=0).reshape(1), rtol=1e-6, atol=0
    )


def test_moments_of_several_shards_join_by_name() -> None:
    first, second = moments_of(0), moments_of(1)
    joined = add_moments([first, second])
    assert joined["flow"].count == 2 * first["flow"].count
    assert torch.equal(joined["flow"].high, torch.maximum(first["flow"].high, second["flow"].high))


def test_parameters_go_from_their_box_to_minus_one_and_one() -> None:
    normalisation = Normalisation.from_moments(PROBLEM, moments_of(0))
    corners = torch.tensor([[100, 1e-3, 7], [300, 10**-1.5, 7], [500, 1.0, 7]], dtype=torch.float64)
    expected = torch.tensor([[-1, -1, 0], [0, 0, 0], [1, 1, 0]], dtype=torch.float32)
    torch.testing.assert_close(normalisation.encode_parameters(corners), expected)
    with pytest.raises(ValueError, match=r"Expected 3 parameters \(T0, k, fixed\)"):
        normalisation.encode_parameters(torch.zeros(2, 2))


def test_encoding_standardises_and_decoding_inverts_it() -> None:
    counted = moments_of(0)
    normalisation = Normalisation.from_moments(PROBLEM, counted, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    fields = {
        "temperature": 300 + 50 * torch.randn(9, 1, 4, 3, generator=generator),
        "flow": torch.randn(9, 1, 4, 2, generator=generator),
    }
    batch = Batch(
        parameters=torch.tensor([[200, 0.1, 7.0]]).expand(9, 3),
        t=torch.linspace(0.5, 2.5, 9).reshape(9, 1),
        fields=fields,
        simulation=torch.zeros(9, dtype=torch.int64),
        step=torch.zeros(9, 1, dtype=torch.int64),
        inputs={"a.b": torch.rand(9, 5)},
    )
    encoded = normalisation.encode(batch)
    assert encoded.fields["temperature"].dtype == encoded.t.dtype == torch.float64
    torch.testing.assert_close(encoded.t[:, 0], torch.linspace(0, 1, 9, dtype=torch.float64))
    again = Moments.of(encoded.fields["flow"], components=2)
    torch.testing.assert_close(again.mean, torch.zeros(2, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        again.variance, torch.ones(2, dtype=torch.float64), atol=1e-6, rtol=0
    )
    decoded = normalisation.decode_fields(encoded.fields)
    for name, values in fields.items():
        torch.testing.assert_close(decoded[name].float(), values, rtol=1e-5, atol=1e-5)


def test_a_constant_field_a_single_time_and_steady_times_are_safe() -> None:
    counted = moments_of(0)
    counted["temperature"] = Moments.of(torch.full((3, 1, 4, 3), 293.15, dtype=torch.float64))
    counted["t"] = Moments.of(torch.tensor([1.5]))
    normalisation = Normalisation.from_moments(PROBLEM, counted)
    values = torch.full((2, 1, 4, 3), 293.15)
    encoded = normalisation.encode_fields({"temperature": values})["temperature"]
    torch.testing.assert_close(encoded, torch.zeros_like(encoded), atol=1e-4, rtol=0)
    decoded = normalisation.decode_fields({"temperature": encoded})["temperature"]
    torch.testing.assert_close(decoded, values)
    assert normalisation.encode_t(torch.tensor([[1.5]])).item() == 0
    del counted["t"]
    steady = Normalisation.from_moments(PROBLEM, counted)
    assert steady.encode_t(torch.tensor([[float("nan"), 0.0]])).tolist() == [[0, 0]]


def test_constants_survive_json_to_the_bit() -> None:
    normalisation = Normalisation.from_moments(PROBLEM, moments_of(0), dtype=torch.float64)
    again = Normalisation.from_dict(json.loads(json.dumps(normalisation.to_dict())))
    assert again.dtype == torch.float64
    theirs = dict(again.named_buffers())
    for name, values in normalisation.named_buffers():
        assert torch.equal(values, theirs[name]), name


def test_fields_without_counts_are_named() -> None:
    counted = moments_of(0)
    counted["flow"] = Moments.none(2)
    with pytest.raises(ValueError, match="needs values of the field 'flow'"):
        Normalisation.from_moments(PROBLEM, counted)
    normalisation = Normalisation.from_moments(PROBLEM, moments_of(0))
    with pytest.raises(ValueError, match="no normalisation for the field 'pressure'"):
        normalisation.encode_fields({"pressure": torch.zeros(1)})
