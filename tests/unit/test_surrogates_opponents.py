"""The linear emulator and the best constant: exact where theory says so, bounded in memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from penstock_surrogates import ConstantEmulator, Field, LinearEmulator, Parameter, Problem

torch.set_num_threads(1)
N, STEPS = 8, 10
PROBLEM = Problem(
    parameters=tuple(Parameter(f"T{i}", 100, 500) for i in range(5)),
    fields={"temperature": Field((N, N), unit="K"), "flux": Field((4,), unit="W")},
)
SIZE = PROBLEM.size


class LinearTruth:
    """Fields that are affine in the parameters, with a map of its own for each step."""

    def __init__(self, rank: int | None = None) -> None:
        generator = torch.Generator().manual_seed(1)
        self.maps = torch.randn(STEPS, 6, SIZE, dtype=torch.float64, generator=generator)
        if rank is not None:  # all fields in one subspace
            modes = torch.randn(rank, SIZE, dtype=torch.float64, generator=generator)
            self.maps = self.maps[:, :, :rank] @ modes

    def __call__(self, parameters: Tensor, step: Tensor) -> dict[str, Tensor]:
        """(b, p), (b, k) -> name -> (b, k, *shape)."""
        x = torch.cat([parameters, torch.ones(len(parameters), 1, dtype=torch.float64)], dim=1)
        y = torch.einsum("bq,bkqd->bkd", x, self.maps[step])
        grid, flux = torch.split(y, [N * N, 4], dim=2)
        return {"temperature": grid.reshape(*step.shape, N, N), "flux": flux}


def draw(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 100 + 400 * torch.rand(n, 5, dtype=torch.float64, generator=generator)


def stream(emulator: LinearEmulator, truth: LinearTruth, n: int, seed: int = 0) -> None:
    """n whole simulations one after the other, each in two pieces."""
    for parameters in torch.chunk(draw(n, seed), n):
        for step in torch.arange(STEPS).reshape(2, 1, STEPS // 2):
            emulator.update(parameters, step, truth(parameters, step))


def worst(emulator: LinearEmulator, truth: LinearTruth) -> float:
    parameters, step = draw(7, 99), torch.arange(STEPS).expand(7, STEPS)
    predicted, expected = emulator.predict(parameters, step), truth(parameters, step)
    return max(float((predicted[n] - expected[n]).abs().max()) for n in expected)


def test_six_simulations_determine_a_linear_problem_to_rounding() -> None:
    truth, emulator = LinearTruth(), LinearEmulator(PROBLEM, STEPS)
    stream(emulator, truth, 6)
    emulator.solve()
    assert (emulator.samples, emulator.kind) == (6, "ridge per step")
    assert worst(emulator, truth) < 1e-8  # of values about 1000


def test_five_simulations_do_not() -> None:
    truth, emulator = LinearTruth(), LinearEmulator(PROBLEM, STEPS)
    stream(emulator, truth, 5)
    emulator.solve()
    assert worst(emulator, truth) > 1.0


def test_a_large_ridge_predicts_the_mean() -> None:
    truth, emulator = LinearTruth(), LinearEmulator(PROBLEM, STEPS)
    stream(emulator, truth, 20)
    emulator.solve(ridge=1e9)
    step = torch.zeros(20, 1, dtype=torch.int64)
    mean = truth(draw(20, 0), step)["flux"].mean(dim=0)
    predicted = emulator.predict(draw(1, 5), step[:1])["flux"]
    torch.testing.assert_close(predicted[0], mean)


def test_with_little_memory_it_works_on_a_pod_basis() -> None:
    truth = LinearTruth(rank=3)
    emulator = LinearEmulator(PROBLEM, STEPS, max_bytes=24_000)  # the full one needs 32,640
    stream(emulator, truth, 60)
    emulator.solve()
    assert "POD modes" in emulator.kind
    assert worst(emulator, truth) < 1e-6


def test_a_pod_basis_smaller_than_the_data_still_beats_the_constant() -> None:
    truth = LinearTruth()
    emulator = LinearEmulator(PROBLEM, STEPS, max_bytes=24_000, rank=5)
    stream(emulator, truth, 60)
    emulator.solve()
    parameters, step = draw(7, 99), torch.arange(STEPS).expand(7, STEPS)
    predicted, expected = emulator.predict(parameters, step), truth(parameters, step)
    error = (predicted["temperature"] - expected["temperature"]).square().mean()
    assert 1.0 < error < 0.95 * expected["temperature"].var()


def test_a_stream_that_ends_before_the_basis_stands_is_solved_with_what_came() -> None:
    truth = LinearTruth(rank=2)
    emulator = LinearEmulator(PROBLEM, STEPS, max_bytes=24_000)
    parameters = draw(1, 0)
    step = torch.arange(STEPS).expand(1, STEPS)
    emulator.update(parameters, step, truth(parameters, step))
    emulator.solve()
    assert emulator.samples >= 1
    assert torch.isfinite(emulator.predict(parameters, step)["flux"]).all()


def test_wrong_use_is_answered_in_sentences() -> None:
    emulator = LinearEmulator(PROBLEM, STEPS)
    with pytest.raises(ValueError, match="solved after its last update"):
        emulator.predict(draw(1, 0), torch.zeros(1, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="max_bytes is 100; raise it"):
        LinearEmulator(PROBLEM, STEPS, max_bytes=100)
    with pytest.raises(ValueError, match="it has seen none"):
        ConstantEmulator(PROBLEM, STEPS).predict(torch.zeros(1, dtype=torch.int64), True)


def test_the_constants_are_the_training_means() -> None:
    truth, constant = LinearTruth(), ConstantEmulator(PROBLEM, STEPS)
    parameters, step = draw(4, 0), torch.arange(STEPS).expand(4, STEPS)
    fields = truth(parameters, step)
    for rows in (slice(0, 1), slice(1, 4)):
        constant.update(step[rows], {name: values[rows] for name, values in fields.items()})
    assert constant.count == 4 * STEPS
    per_step = constant.predict(torch.arange(STEPS), per_step=True)
    overall = constant.predict(torch.arange(STEPS), per_step=False)
    for name, values in fields.items():
        torch.testing.assert_close(per_step[name], values.mean(dim=0))
        torch.testing.assert_close(overall[name][3], values.mean(dim=(0, 1)))


def test_a_constant_without_room_keeps_the_overall_mean_only() -> None:
    constant = ConstantEmulator(PROBLEM, STEPS, max_bytes=100)
    step = torch.arange(2).reshape(1, 2)
    constant.update(step, LinearTruth()(draw(1, 0), step))
    assert not constant.per_step
    means = constant.predict(torch.arange(2), per_step=True)["flux"]
    assert torch.equal(means[0], means[1])
