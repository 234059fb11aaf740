"""The contract of every registered surrogate, with the options it has by default."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from penstock_surrogates import (
    Field,
    Moments,
    Normalisation,
    Parameter,
    Problem,
    build,
    find_loss,
    load,
    save,
)
from penstock_surrogates.registry import SURROGATES, find_surrogate

torch.set_num_threads(1)
PROBLEM = Problem(
    parameters=(Parameter("a", 0, 1), Parameter("b", 1, 100, "log-uniform")),
    fields={"u": Field((4, 4)), "v": Field((3, 2), components=2), "q": Field((), role="quantity")},
    t_range=(0.0, 1.0),
    window=2,
)
WITH_INPUTS = Problem(PROBLEM.parameters, PROBLEM.fields, {"k": Field((5,), role="input")})


def normalised(problem: Problem, b: int, k: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return (
        2 * torch.rand(b, len(problem.parameters), generator=generator) - 1,
        torch.rand(b, k, generator=generator),
        {n: torch.randn(b, *spec.shape, generator=generator) for n, spec in problem.inputs.items()},
    )


@pytest.fixture(params=sorted(SURROGATES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("problem", [PROBLEM, WITH_INPUTS], ids=["parameters", "inputs"])
def test_it_gives_every_field_in_its_shape(name: str, problem: Problem) -> None:
    model = build(name, problem, {})
    for b, k in ((3, 2), (1, 1)):
        output = model(*normalised(problem, b, k))
        assert {n: tuple(values.shape) for n, values in output.items()} == {
            n: (b, k, *spec.shape) for n, spec in problem.fields.items()
        }


def test_samples_do_not_look_at_each_other(name: str) -> None:
    model = build(name, WITH_INPUTS, {}).double().eval()
    parameters, t, inputs = normalised(WITH_INPUTS, 4, 2)
    args = parameters.double(), t.double(), {n: v.double() for n, v in inputs.items()}
    together = model(*args)
    alone = model(args[0][1:2], args[1][1:2], {n: v[1:2] for n, v in args[2].items()})
    for n, values in alone.items():
        torch.testing.assert_close(values, together[n][1:2])


def test_it_learns_one_batch(name: str) -> None:
    torch.manual_seed(0)
    model = build(name, WITH_INPUTS, {})
    parameters, t, inputs = normalised(WITH_INPUTS, 4, 2)
    target = {n: torch.randn(4, 2, *spec.shape) for n, spec in WITH_INPUTS.fields.items()}
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    loss = find_loss("mse")
    before = loss(model(parameters, t, inputs), target).mean().item()
    for _ in range(100):
        optimizer.zero_grad()
        torch.autograd.backward(loss(model(parameters, t, inputs), target).mean())
        optimizer.step()
    assert loss(model(parameters, t, inputs), target).mean().item() < 0.3 * before
    assert all(p.grad is not None for p in model.parameters()), "an unused weight stalls DDP"


def test_saved_and_loaded_it_predicts_the_same_to_the_bit(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(name, WITH_INPUTS, {})
    counted = {
        n: Moments.of(5 + torch.randn(20, *spec.shape), spec.components)
        for n, spec in {**WITH_INPUTS.fields, **WITH_INPUTS.inputs}.items()
    }
    counted["t"] = Moments.of(torch.tensor([0.0, 2.0]))
    normalisation = Normalisation.from_moments(WITH_INPUTS, counted)
    save(tmp_path / "m", model, WITH_INPUTS, normalisation, {}, about={"campaign": "test"})
    surrogate = load(tmp_path / "m")
    assert surrogate.problem == WITH_INPUTS
    assert surrogate.about == {"campaign": "test"}
    for n, values in model.state_dict().items():
        assert torch.equal(values, surrogate.model.state_dict()[n])
    k = torch.randn(5)
    predicted = surrogate.predict({"a": 0.5, "b": 10.0}, t=[0.0, 1.0, 2.0], inputs={"k": k})
    with torch.no_grad():
        direct = model(
            torch.zeros(3, 2),
            torch.tensor([[0.0], [0.5], [1.0]]),
            normalisation.encode_fields({"k": k.expand(3, 5)}),
        )
    expected = normalisation.decode_fields(direct)
    for n, values in predicted.items():
        assert torch.equal(values, expected[n][:, 0]), n


def test_an_unknown_name_lists_the_surrogates_with_their_options() -> None:
    with pytest.raises(ValueError, match=r"'fno' is unknown.*mlp\(hidden=\(256, 256\), activation"):
        find_surrogate("fno")
    with pytest.raises(ValueError, match=r"no_such_module.*cannot be imported"):
        find_surrogate("no_such_module:Net")
    with pytest.raises(ValueError, match="has no 'Nothing'"):
        find_surrogate("penstock_surrogates.mlp:Nothing")
    with pytest.raises(ValueError, match=r"derived from torch\.nn\.Module"):
        find_surrogate("math:sqrt")
    with pytest.raises(ValueError, match=r"options are: hidden=\(256, 256\), activation='relu'"):
        build("mlp", PROBLEM, {"depth": 3})
    with pytest.raises(ValueError, match="choose one of relu, gelu"):
        build("mlp", PROBLEM, {"activation": "sine"})
    with pytest.raises(ValueError, match="whole numbers above 0"):
        build("mlp", PROBLEM, {"hidden": [64, 0]})


def test_a_class_of_the_users_own_is_found_by_module_and_name() -> None:
    assert find_surrogate("torch.nn:Identity") is nn.Identity
    assert find_surrogate("penstock_surrogates.mlp:MLP") is SURROGATES["mlp"]


def test_the_heat_network_is_the_one_of_the_papers() -> None:
    heat = Problem(
        tuple(Parameter(f"T{i}", 100, 500) for i in range(5)), {"temperature": Field((100, 100))}
    )
    layers = [m for m in build("mlp", heat, {}).modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in layers] == [
        (6, 256),
        (256, 256),
        (256, 10000),
    ]
