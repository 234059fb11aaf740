"""Every mistake is a full sentence with the key, what came, the choices and the line."""

from __future__ import annotations

import pytest
from campaigns import SMALL, line_of, small

from penstock_server.config import CampaignError, parse


def problems(text: str, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(CampaignError) as caught:
        parse(text, overrides, name="c.toml")
    return caught.value.problems


def test_an_unknown_key_is_answered_with_the_closest_and_all_valid_keys() -> None:
    text = SMALL.replace("workers = 2", "worker = 2")
    (problem,) = problems(text)
    assert problem.startswith(f"c.toml, line {line_of(text, 'worker')}: Unknown key `worker`")
    assert "in [solver]. Did you mean workers?" in problem
    assert "Valid keys are command, env, max_attempts, max_steps, mpi_ranks" in problem


def test_an_unknown_table_is_answered_with_the_tables() -> None:
    (problem,) = problems(SMALL + "[trainig]\nranks = 2\n")
    assert "Unknown key `trainig` in the campaign file. Did you mean training?" in problem
    assert "checkpoint, design, fields, keep, liveness" in problem


def test_an_unknown_key_of_an_inline_table_has_its_line() -> None:
    text = SMALL.replace("high = 500 }", "hihg = 500 }")
    line = line_of(text, "T0")
    assert any(
        f"line {line}: Unknown key `hihg` in [design.parameters.T0]. Did you mean high?" in p
        for p in problems(text)
    )


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    text = SMALL.replace("seed = 1", "seed = -1").replace("[32, 32]", '["a", 0]')
    told = problems(text + 'window = "x"\n')
    assert [problem.split("`")[1] for problem in told] == [
        "seed",
        "fields.temperature.shape[0]",
        "fields.temperature.shape[1]",
        "training.window",
    ]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("solver.workers=two", '`solver.workers` must be a whole number, got the text "two".'),
        ("solver.workers=1.5", "`solver.workers` must be a whole number, got 1.5."),
        ("solver.workers=true", "`solver.workers` must be a whole number, got true."),
        ("solver.workers=0", "`solver.workers` must be at least 1, got 0."),
        ("solver.mpi_ranks=-2", "`solver.mpi_ranks` must be at least 1, got -2."),
        ("solver.command=[]", "`solver.command` must be 1 entry or more, got []."),
        ("solver.command='a b'", '`solver.command` must be an array ([..]), got the text "a b".'),
        ("solver.env.A=1", '`solver.env.A` must be a text in quotes (".."), got 1.'),
        ("design.simulations=0", "`design.simulations` must be at least 1, got 0."),
        ("liveness.beat_s=0", "`liveness.beat_s` must be above 0, got 0."),
        ("liveness.beat_s=inf", "`liveness.beat_s` must be a finite number, got inf."),
        ("training.learning_rate=nan", "must be a finite number, got nan."),
        ("reservoir.draws_per_sample=0.5", "must be at least 1, got 0.5."),
        ("stop=3", "`stop` must be a table, got 3."),
        ("name=a/b", "must be a name of letters, digits, '.', '-' and '_'"),
        ("training.device=gpu", 'must be one of "auto", "cpu", "cuda" or "cuda:0"'),
        ("training.loss=my:", 'must be a name or a reference such as "module:name"'),
        ("training.training_step=mse", 'must be a reference such as "module:name"'),
        ("reservoir.policy=lru", "must be one of reservoir, fifo, firo, got"),
        ("fields.temperature.dtype=float16", "must be one of float32, float64, got"),
        ("fields.temperature.role=stat", "Did you mean state?"),
        (
            "training.optimizer=adamW2",
            '`training.optimizer` must be one of adam, adamw, sgd or "module:name", '
            'got the text "adamW2". Did you mean adamw?',
        ),
        ("design.sampler=sobel", "random, lhs, halton, sobol, csv or"),
        ("design.parameters.T0.distribution=log", "uniform, log-uniform, integer, choice"),
    ],
)
def test_a_wrong_value_names_what_was_expected(override: str, sentence: str) -> None:
    told = problems(SMALL, override)
    assert len(told) == 1
    assert told[0].startswith(f"--set {override.partition('=')[0]}: ")
    assert sentence in told[0]


def test_a_missing_key_and_a_missing_table_are_named() -> None:
    without = SMALL.replace("simulations = 200\n", "")
    (problem,) = problems(without)
    assert problem == (
        f"c.toml, line {line_of(without, '[design]')}: "
        "[design] lacks the key `simulations`, which has no default."
    )
    assert problems('name = "a"\n')[0].startswith("c.toml: The campaign file lacks the key")


def test_a_sample_that_is_longer_than_a_segment_is_told_with_its_span() -> None:
    own = ("stream.segment_steps=4", "training.window=3", "training.stride=2")
    (problem,) = problems(SMALL, *own)
    assert problem.startswith("--set training.stride: ")
    assert "3 steps that are 2 apart span 5, and stream.segment_steps is 4" in problem


@pytest.mark.parametrize(
    ("override", "key", "part"),
    [
        ("training.window=2", "training.window", "at most stream.segment_steps = 1, got 2"),
        ("stream.segment_steps=101", "stream.segment_steps", "more than the 100 steps"),
        ("stream.window_bytes=100", "stream.window_bytes", "about 4096 bytes"),
        ("reservoir.band=9", "reservoir.band", "ranks x batch_size = 1 x 10 = 10, got 9"),
        ("reservoir.capacity=9", "reservoir.capacity", "at least ranks x batch_size"),
        ("reservoir.policy=fifo", "reservoir.draws_per_sample", "draws every sample once"),
        ("reservoir.threshold=4000", "reservoir.capacity", "above threshold = 4000"),
        ("solver.workers=5000", "reservoir.capacity", "fewer than the 5000 workers"),
        ("solver.max_steps=5", "solver.max_steps", "not both"),
        ("liveness.silence_s=2", "liveness.silence_s", "three beats"),
        ("design.sampler=csv", "design.sampler", 'file = "points.csv"'),
        ("design.file=x.csv", "design.file", 'needs sampler = "csv"'),
        ("design.parameters={}", "design", "Nothing distinguishes"),
        ("fields.temperature.role=forcing", "fields", 'role "state" or "quantity"'),
        ("fields.temperature.role=input", "fields", 'role "state" or "quantity"'),
        ("fields.p={shape=[1], every=2}", "fields", "one `every`"),
        ("fields.t={shape=[1]}", "fields.t", "the name of the time"),
        ("fields.a={shape=[1], role='input', every=2}", "fields.a.every", "once per simulation"),
        ("fields.temperature.crop=[[0,32]]", "fields.temperature.crop", "needs 2 pairs"),
        ("fields.temperature.crop=[[0,33],[0,1]]", "fields.temperature.crop", "stop <= 32"),
        ("fields.temperature.stride=[2]", "fields.temperature.stride", "needs 2 numbers"),
        ("fields.temperature.stride=[2,64]", "fields.temperature.stride", "its length 32"),
        ("fields.temperature.components=2", "fields.temperature.components", "last axis"),
        ("fields.temperature.keep_components=[0]", "fields.temperature.keep_components", "> 1"),
        ("design.parameters.T0.low=500", "design.parameters.T0.low", "must be below high"),
        ("design.parameters.k.low=0", "design.parameters.k.low", "low > 0"),
        ("design.parameters.T0={low=1}", "design.parameters.T0", "high is missing"),
        ("design.parameters.T0.choices=[1]", "design.parameters.T0.choices", "needs distribution"),
        (
            "design.parameters.T0={distribution='choice'}",
            "design.parameters.T0.choices",
            "needs choices",
        ),
        (
            "design.parameters.T0={distribution='integer',low=0.5,high=3}",
            "design.parameters.T0.low",
            "whole bounds",
        ),
    ],
)
def test_an_impossible_combination_is_refused_at_its_key(
    override: str, key: str, part: str
) -> None:
    told = problems(SMALL, override)
    assert len(told) == 1, told
    assert f": `{key}`: " in told[0]
    assert part in told[0]


def test_cosine_needs_a_known_number_of_batches() -> None:
    unknown = SMALL.replace("steps = 100", "max_steps = 100")
    (problem,) = problems(unknown, "training.schedule=cosine")
    assert "needs a known number of batches" in problem
    assert parse(unknown, ["training.schedule=cosine", "stop.batches=5"]).planned_batches == 5
    assert small("training.schedule=cosine").planned_batches == 2500


def test_a_target_error_needs_validation_simulations() -> None:
    (problem,) = problems(SMALL, "stop.target_error=0.1", "design.validation=0")
    assert "needs validation simulations" in problem


def test_steps_or_max_steps_must_be_given() -> None:
    (problem,) = problems(SMALL.replace("steps = 100\n", ""))
    assert "needs steps, or max_steps" in problem


def test_a_conflict_is_placed_on_the_line_of_its_key() -> None:
    text = SMALL.replace("batch_size = 10", "batch_size = 10\nwindow = 4")
    (problem,) = problems(text)
    assert problem.startswith(f"c.toml, line {line_of(text, 'window')}: ")
