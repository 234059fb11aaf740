"""Reading, overriding, deriving from and saving a campaign file."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaigns import SMALL, small

from penstock_server.config import Campaign, CampaignError, load, parse
from penstock_server.tables import FieldSpec


def test_a_file_is_read_with_the_defaults_filled_in(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(SMALL)
    campaign = load(tmp_path / "c.toml")
    assert campaign.solver.command[1:] == ("-m", "penstock_solvers.heat_numpy")
    assert campaign.training.optimizer == "adam"
    assert campaign.design.parameters["T0"].box == (100.0, 500.0)
    assert campaign.fields["temperature"].sent_shape == (32, 32)


def test_band_and_threshold_follow_from_batch_and_capacity() -> None:
    campaign = small("training.ranks=2", "reservoir.capacity=1000")
    assert campaign.reservoir.band == 2 * 2 * 10
    assert campaign.reservoir.threshold == 100
    assert small("reservoir.capacity=50").reservoir.threshold == 10
    assert small("reservoir.band=77", "reservoir.threshold=5").reservoir.band == 77


def test_an_override_is_toml_and_else_plain_text() -> None:
    campaign = small(
        "training.ranks=2",
        "training.options={hidden = [64]}",
        "training.schedule=cosine",
        "design.parameters.T0.high=600",
        "solver.env.A=x=y",
    )
    assert campaign.training.ranks == 2
    assert campaign.training.options == {"hidden": [64]}
    assert campaign.training.schedule == "cosine"
    assert campaign.design.parameters["T0"].high == 600
    assert campaign.solver.env == {"A": "x=y"}


def test_a_saved_campaign_is_loaded_as_the_same(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("T0,k\n")
    campaign = parse(
        SMALL,
        [
            "design.sampler=csv",
            "design.file=points.csv",
            "fields.temperature.crop=[[0, 16], [8, 24]]",
            'training.options={hidden = [64, 64], activation = "tanh"}',
            "stop.batches=10",
        ],
        folder=tmp_path,
    )
    (tmp_path / "elsewhere").mkdir()
    campaign.save(tmp_path / "elsewhere" / "resolved.toml")
    assert load(tmp_path / "elsewhere" / "resolved.toml") == campaign


def test_a_relative_file_is_looked_for_beside_the_campaign(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("T0,k\n")
    text = SMALL.replace('sampler = "sobol"', 'sampler = "csv"\nfile = "points.csv"')
    (tmp_path / "c.toml").write_text(text)
    assert load(tmp_path / "c.toml").design.file == str(tmp_path / "points.csv")


def test_a_campaign_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        small().training.ranks = 3  # type: ignore[misc]


def test_models_can_be_made_in_code() -> None:
    campaign = Campaign.model_validate(
        {
            "name": "code",
            "solver": {"command": ["true"], "steps": 3},
            "design": {"simulations": 2, "parameters": {"a": {"low": 0, "high": 1}}},
            "fields": {"u": {"shape": []}},
        }
    )
    assert campaign.fields["u"].sent_shape == ()
    assert campaign.reservoir.band == 20


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ({"shape": [32, 30]}, (32, 30)),
        ({"shape": [32, 30], "stride": [2, 4]}, (16, 8)),
        ({"shape": [32, 30], "crop": [[1, 32], [0, 30]], "stride": [2, 7]}, (16, 5)),
        ({"shape": [32, 30, 3], "components": 3, "stride": [2, 1]}, (16, 30, 3)),
        ({"shape": [8, 3], "components": 3, "keep_components": [0, 2]}, (8, 2)),
        ({"shape": []}, ()),
    ],
)
def test_crop_stride_and_components_give_the_sent_shape(
    field: dict[str, object], sent: tuple[int, ...]
) -> None:
    assert FieldSpec.model_validate(field).sent_shape == sent


def test_sent_bytes_count_the_dtype() -> None:
    assert FieldSpec(shape=(10,), dtype="float32").sent_bytes == 40
    assert FieldSpec(shape=(10,), dtype="float64").sent_bytes == 80


@pytest.mark.parametrize(("every", "sent"), [(1, 100), (2, 50), (3, 34), (1000, 1)])
def test_every_nth_step_is_sent_beginning_with_the_first(every: int, sent: int) -> None:
    assert small(f"fields.temperature.every={every}").steps_sent == sent


@pytest.mark.parametrize(
    ("length", "window", "stride", "segments", "samples"),
    [
        (1, 1, 1, 100, 100),
        (10, 1, 1, 10, 100),
        (10, 4, 1, 10, 70),
        (10, 4, 2, 10, 40),
        (30, 4, 1, 4, 3 * 27 + 7),
        (30, 15, 1, 4, 48),
    ],
)
def test_segments_and_samples_of_a_simulation_are_counted(
    length: int, window: int, stride: int, segments: int, samples: int
) -> None:
    campaign = small(
        f"stream.segment_steps={length}", f"training.window={window}", f"training.stride={stride}"
    )
    assert campaign.segments_per_simulation == segments
    assert campaign.samples_per_simulation == samples


def test_the_number_of_batches_follows_from_the_draws() -> None:
    assert small().planned_batches == 200 * 100 * 1.25 / 10
    assert small("stop.batches=7").planned_batches == 7
    unknown = parse(SMALL.replace("steps = 100", "max_steps = 100"))
    assert unknown.planned_batches is None


def test_a_missing_file_is_a_sentence() -> None:
    with pytest.raises(CampaignError, match=r"nowhere\.toml cannot be read: No such file"):
        load("nowhere.toml")


def test_broken_toml_is_a_sentence_with_its_line() -> None:
    with pytest.raises(CampaignError, match=r"not valid TOML: .*line 2"):
        parse("name = 'a'\nseed = \n")


@pytest.mark.parametrize("override", ["training.ranks", "=3", "training..ranks=2", "name.x=2"])
def test_an_override_that_is_no_key_and_value_is_refused(override: str) -> None:
    with pytest.raises(CampaignError, match="--set"):
        small(override)
