"""A trained surrogate on disk and in the hands of its user."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from penstock_surrogates import (
    Field,
    Moments,
    Normalisation,
    Parameter,
    Problem,
    TrainedSurrogate,
    build,
    load,
    save,
)

torch.set_num_threads(1)
SURROGATES = Path(__file__).parents[2] / "surrogates"
PROBLEM = Problem(
    (Parameter("a", 0, 1), Parameter("b", 10, 20)),
    {"u": Field((3, 2))},
    t_range=(0.0, 1.0),
    window=2,
)
OPTIONS = {"hidden": [16], "activation": "tanh"}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    normalisation = Normalisation.from_moments(PROBLEM, {"u": Moments.of(torch.randn(20, 3, 2))})
    save(tmp_path / "model", build("mlp", PROBLEM, OPTIONS), PROBLEM, normalisation, OPTIONS)
    return tmp_path / "model"


def test_predictions_for_one_and_for_many_simulations_agree(saved: Path) -> None:
    surrogate = load(saved)
    t = torch.linspace(0, 1, 5)
    one = surrogate.predict({"a": 0.25, "b": 12}, t=t)["u"]
    assert one.shape == (5, 3, 2)
    many = surrogate.predict({"a": [0.0, 0.25, 1.0], "b": 12}, t=t)["u"]
    assert many.shape == (3, 5, 3, 2)
    torch.testing.assert_close(many[1], one)
    own_times = surrogate.predict({"a": 0.25, "b": 12}, t=torch.stack([t, t / 2]))["u"]
    assert own_times.shape == (2, 5, 3, 2)
    torch.testing.assert_close(own_times[0], one)
    assert surrogate({"a": 0.25, "b": 12}, t=0.5)["u"].shape == (1, 3, 2)


def test_it_warns_outside_the_box_and_only_there(saved: Path) -> None:
    surrogate = load(saved)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        surrogate.predict({"a": 1.0, "b": 20}, t=[0.0, 1.0])
    with pytest.warns(UserWarning, match=r"trained with b in \[10, 20\], t in \[0, 1\]; outside"):
        surrogate.predict({"a": 0.5, "b": 21}, t=[2.0])


def test_wrong_requests_are_answered_in_sentences(saved: Path, tmp_path: Path) -> None:
    surrogate = load(saved)
    with pytest.raises(ValueError, match="needs the parameters a, b: missing b, unknown c"):
        surrogate.predict({"a": 1.0, "c": 1.0}, t=[0.0])
    with pytest.raises(ValueError, match="as many numbers as the others"):
        surrogate.predict({"a": [0.1, 0.2], "b": [11.0, 12.0, 13.0]}, t=[0.0])
    with pytest.raises(ValueError, match="needs the input fields none, but it was given k"):
        surrogate.predict({"a": 1.0, "b": 15}, t=[0.0], inputs={"k": torch.zeros(3)})
    with pytest.raises(ValueError, match="Times for 3 and parameters for 2 simulations"):
        surrogate.predict({"a": [0.1, 0.2], "b": 15}, t=torch.zeros(3, 4))
    with pytest.raises(FileNotFoundError, match=r"lacks model\.json and model\.safetensors"):
        load(tmp_path)
    config = json.loads((saved / "model.json").read_text())
    (saved / "model.json").write_text(json.dumps({**config, "format": "penstock-surrogate-9"}))
    with pytest.raises(ValueError, match="use the version of penstock that wrote it"):
        load(saved)


def test_a_network_in_double_precision_stays_in_it(tmp_path: Path) -> None:
    counted = {"u": Moments.of(torch.randn(20, 3, 2))}
    normalisation = Normalisation.from_moments(PROBLEM, counted, dtype=torch.float64)
    model = build("mlp", PROBLEM, OPTIONS).double()
    save(tmp_path, model, PROBLEM, normalisation, OPTIONS)
    request = {"a": 0.1, "b": 11.0}
    mine = TrainedSurrogate(model, PROBLEM, normalisation).predict(request, t=[0.3])["u"]
    assert mine.dtype == torch.float64
    assert torch.equal(load(tmp_path).predict(request, t=[0.3])["u"], mine)


def test_loading_needs_torch_and_safetensors_only(saved: Path) -> None:
    script = (
        "import sys, torch, safetensors.torch\n"
        "before = {m.partition('.')[0] for m in sys.modules}\n"
        "import penstock_surrogates\n"
        f"penstock_surrogates.load({str(saved)!r}).predict({{'a': 0, 'b': 15}}, t=[0.5])\n"
        "after = {m.partition('.')[0] for m in sys.modules}\n"
        "print(sorted(m for m in after - before if m not in sys.stdlib_module_names))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(SURROGATES), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert run.stdout.strip() == "['penstock_surrogates']"
