"""`penstock predict`: a stored surrogate, asked from the command line."""

from __future__ import annotations

import fcntl
from pathlib import Path

import h5py
import meshio
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from penstock_server import predict as asking
from penstock_server import vtu
from penstock_server.cli import app
from penstock_server.design import DesignError
from penstock_surrogates import Moments, Normalisation, load
from penstock_surrogates.mlp import MLP
from penstock_surrogates.problem import Field, Parameter, Problem
from penstock_surrogates.storage import save

PROBLEM = Problem(
    (Parameter("a", 0.0, 1.0, "uniform"), Parameter("b", 10.0, 20.0, "uniform")),
    {
        "u": Field((5, 4), "state", "K", 1),
        "v": Field((5, 4, 2), "state", "m/s", 2),
        "s": Field((3,), "quantity", "", 1),
    },
    {},
    window=1,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    moments = {
        name: Moments.of(torch.randn(50, *spec.shape) * 7 + 300, spec.components)
        for name, spec in PROBLEM.fields.items()
    }
    moments["t"] = Moments.of(torch.linspace(0, 2, 50), 1)
    normalisation = Normalisation.from_moments(PROBLEM, moments, torch.float32)
    folder = tmp_path / "model"
    save(folder, MLP(PROBLEM, [8]), PROBLEM, normalisation, {"hidden": [8]}, name="mlp")
    return folder


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    return result.exit_code, result.output


def test_hdf5_and_vtu_hold_what_the_surrogate_says(model: Path, tmp_path: Path) -> None:
    table = tmp_path / "points.csv"
    table.write_text("b, a\n11, 0.25\n19, 0.75\n")
    code, output = run(model, "--csv", table, "--t", "0.5,1.5", "--out", tmp_path / "out")
    assert code == 0, output
    said = load(model).predict({"a": [0.25, 0.75], "b": [11, 19]}, t=[0.5, 1.5])
    with h5py.File(tmp_path / "out" / "prediction.h5") as file:
        assert file.attrs["format"] == asking.FORMAT
        assert file["parameters/a"][:].tolist() == [0.25, 0.75]
        assert file["fields/u"].attrs["unit"] == "K"
        for name, values in said.items():
            np.testing.assert_array_equal(file[f"fields/{name}"][:], values.numpy())
    mesh = meshio.read(tmp_path / "out" / "u-v_0001_0000.vtu")
    np.testing.assert_allclose(mesh.point_data["u"], said["u"][1, 0].numpy().ravel())
    assert mesh.point_data["v"].shape == (20, 3)
    assert len(mesh.cells_dict["quad"]) == 12
    corner = np.flatnonzero((mesh.points == [0.0, 1.0, 0.0]).all(1))[0]
    assert mesh.point_data["u"][corner] == pytest.approx(float(said["u"][1, 0, 4, 0]))
    assert (tmp_path / "out" / "s_0001_0001.vtu").is_file()
    assert (tmp_path / "out" / "picture.png").read_bytes()[:4] == b"\x89PNG"
    assert not list((tmp_path / "out").glob("*.part"))


def test_cells_of_every_dimension_have_a_positive_volume() -> None:
    for shape in ((4,), (4, 3), (4, 3, 2)):
        points, cells = vtu.uniform_grid(shape)
        assert len(cells) == np.prod([n - 1 for n in shape])
        first = points[cells[0]]
        edges = [first[i] - first[0] for i in ((1,), (1, 3), (1, 3, 4))[len(shape) - 1]]
        volume = np.linalg.det(np.array(edges)[:, : len(shape)])
        assert volume == pytest.approx(np.prod([1 / (n - 1) for n in shape]))


def test_outside_the_box_there_is_a_warning_and_a_prediction(model: Path, tmp_path: Path) -> None:
    code, output = run(model, "--params", "a=3,b=15", "--out", tmp_path / "out")
    assert code == 0
    assert "extrapolation" in output
    with h5py.File(tmp_path / "out" / "prediction.h5") as file:
        assert "extrapolation" in file.attrs["warnings"]
        assert file["t"].shape == (5,)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--params", "a=1"], "missing b"),
        (["--params", "a=1,b=15,c=2"], "unknown c"),
        (["--params", "a=1,b=x"], "finite number"),
        (["--params", "a=1,a=2,b=15"], "twice"),
        (["--params", "a"], "NAME=VALUE"),
        (["--params", "a=1,b=15", "--t", "nan"], "finite number"),
        ([], "either --params"),
        (["--csv", "nowhere.csv"], "cannot be read"),
    ],
)
def test_a_mistake_gets_a_sentence(model: Path, arguments: list[str], said: str) -> None:
    code, output = run(model, *arguments)
    assert code == 1
    assert said in " ".join(output.split())


def test_a_table_names_the_line_of_its_mistake(tmp_path: Path) -> None:
    table = tmp_path / "points.csv"
    for text, said in (
        ("a,b\n1,2\n1\n", "line 3: expected 2"),
        ("a,b\n1,x\n", "line 2: b"),
        ("a,b\n", "no rows"),
        ("", "each once"),
        ("a,b,a\n1,2,3\n", "each once"),
    ):
        table.write_text(text)
        with pytest.raises((asking.PredictError, DesignError), match=said):
            asking.read_parameters(table, ["a", "b"])


def test_a_run_without_a_model_says_why(model: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    root.mkdir()
    with pytest.raises(asking.PredictError, match="neither a run nor a model"):
        asking.open_model(root)
    (root / "campaign.toml").write_text("")
    with pytest.raises(asking.PredictError, match="--resume"):
        asking.open_model(root)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(asking.PredictError, match="still running"):
            asking.open_model(root)
    model.rename(root / "model")
    assert asking.open_model(root).problem.parameter_names == PROBLEM.parameter_names


def test_a_damaged_or_newer_model_is_named(model: Path) -> None:
    described = (model / "model.json").read_text()
    (model / "model.json").write_text(described.replace("surrogate-1", "surrogate-9"))
    with pytest.raises(asking.PredictError, match="surrogate-9"):
        asking.open_model(model)
    (model / "model.json").write_text(described[: len(described) // 2])
    with pytest.raises(asking.PredictError, match=r"model\.json is damaged"):
        asking.open_model(model)
    (model / "model.json").write_text(described)
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[:-40])
    with pytest.raises(asking.PredictError, match=r"model\.safetensors is damaged"):
        asking.open_model(model)
