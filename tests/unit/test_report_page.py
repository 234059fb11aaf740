"""The report of a run: complete, offline, honest about what is missing."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_run import OPPONENTS, finished_run, write

from penstock_server.report import read_run, write_report
from penstock_server.report.cost_sections import speed_sentence
from penstock_server.report.error_sections import staircase, validation_pairs
from penstock_server.report.errors import judged
from penstock_server.report.example_section import shown
from penstock_server.report.numbers import measured, times
from penstock_server.report.opening import verdict
from penstock_server.report.simulation_sections import point_clouds
from penstock_server.report.time_section import fit, phases, rank_shares

SECTIONS = [
    "Errors",
    "Held-out simulations",
    "Errors over time and over simulations",
    "Training",
    "The solver as an opponent",
    "Inputs: designed and drawn",
    "What was lost",
    "Where the time went",
    "Data",
    "The campaign",
    "Using the network",
]


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    shutil.copytree(made, folder)
    return folder


@pytest.fixture(scope="module")
def html(made: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("html") / "report.html"
    return write_report([made], out).read_text(encoding="utf-8")


def test_every_section_is_there_and_the_contents_lead_to_it(html: str) -> None:
    found = Page(html)
    anchors = {f"#{attributes['id']}" for attributes in found.all("h2")}
    assert {attributes["href"] for attributes in found.all("a")} == anchors
    assert len(anchors) == len(SECTIONS)
    for title in SECTIONS:
        assert title in found.text


def test_the_page_asks_for_nothing_from_outside(html: str) -> None:
    found = Page(html)
    sources = [attributes["src"] for attributes in found.all("img")]
    assert len(sources) >= 2 * 7
    for source in sources:
        assert source is not None
        assert source.startswith("data:image/")
    assert not found.all("script")
    assert not found.all("link")
    assert "url(" not in html
    assert len(html) < 5_000_000


def test_every_picture_is_described_and_has_a_dark_twin(html: str) -> None:
    found = Page(html)
    images = found.all("img")
    assert all(attributes.get("alt") for attributes in images)
    light = [attributes for attributes in images if attributes["class"] == "light"]
    dark = [attributes for attributes in images if attributes["class"] == "dark"]
    assert len(light) == len(dark) == len(images) / 2
    for one, twin in zip(light, dark, strict=True):
        assert one["src"] != twin["src"]
        assert one["alt"] == twin["alt"]


def test_a_printed_page_is_light_whatever_the_screen_is(html: str) -> None:
    style = html[html.index("<style>") : html.index("</style>")]
    assert style.count("prefers-color-scheme: dark") == style.count(
        "@media screen and (prefers-color-scheme: dark)"
    )


def test_tables_have_headers_for_columns_and_rows(html: str) -> None:
    scopes = [attributes.get("scope") for attributes in Page(html).all("th")]
    assert set(scopes) == {"col", "row"}


def test_a_message_of_a_solver_is_text_and_not_html(html: str) -> None:
    assert "<script>" not in html
    assert "the solver said <script>alert('no')</script> & ended" in Page(html).text


def test_a_report_leaves_one_file_changes_none_and_is_the_same_again(run: Path, html: str) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert write_report([run]) == run / "report.html"
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert set(after) - set(before) == {run / "report.html"}
    assert all(after[path] == content for path, content in before.items())
    made, again = (
        re.sub(r"/\S*/run\b", "RUN", text) for text in (html, after[run / "report.html"].decode())
    )
    assert again == made


def test_what_a_run_did_not_leave_is_named(run: Path, html: str) -> None:
    sentences = {
        "history.csv": "history.csv is missing",
        "examples.npz": "examples.npz is missing",
        "opponents.json": "penstock opponents ",
        "drawn.json": "drawn.json is missing",
        "coordinator.sqlite": "coordinator.sqlite is missing",
        "validation.json": "no error of the network is known",
    }
    for file, sentence in sentences.items():
        assert sentence not in Page(html).text
        (run / file).unlink()
    found = Page(write_report([run]).read_text())
    for sentence in sentences.values():
        assert sentence in found.text
    for title in SECTIONS:
        assert title in found.text


def test_a_run_with_a_summary_alone_has_a_report(run: Path) -> None:
    for path in run.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in ("summary.json", "campaign.toml"):
            path.unlink()
    write(run / "summary.json", {"format": "penstock-summary-1"})
    assert "The run left no model." in write_report([run]).read_text()


@pytest.mark.parametrize(
    ("t_range", "times"),
    [([0.0, 0.5], ", t=[0.25, 0.5])"), ([2.0, 2.0], ", t=[2])"), ([0.0, 0.0], ")")],
)
def test_the_network_is_asked_at_times_of_its_training(
    run: Path, t_range: list[float], times: str
) -> None:
    path = run / "model" / "model.json"
    described = json.loads(path.read_text())
    described["normalisation"]["t_range"] = t_range
    write(path, described)
    text = Page(write_report([run]).read_text()).text
    assert f'predict({{"a": 0.5, "b": 0}}{times}' in text


def test_python_and_the_command_ask_the_same_network(run: Path) -> None:
    for folder in ("best", "model"):
        text = Page(write_report([run]).read_text()).text
        assert f'load("{run / folder}")' in text
        assert f"penstock predict {run / folder} --params a=0.5,b=0" in text
        shutil.rmtree(run / "best", ignore_errors=True)


def test_a_network_of_input_fields_is_asked_with_them(run: Path) -> None:
    path = run / "model" / "model.json"
    described = json.loads(path.read_text())
    described["problem"]["inputs"] = {"k": {"shape": [3], "role": "input"}}
    write(path, described)
    text = Page(write_report([run]).read_text()).text
    assert 'inputs={"k": k})' in text
    assert "penstock predict" not in text


def test_the_opening_sentence_says_who_is_better(run: Path) -> None:
    text = verdict(read_run(run))
    assert "On 3 test simulations" in text
    assert "the linear emulator is the better surrogate" in text
    figures = json.loads((run / "validation.json").read_text())
    figures["test"]["network"]["value"] = 0.1
    figures["test"]["constant"]["value"] = 1.0
    figures["test"]["linear"]["value"] = 0.05
    write(run / "validation.json", figures)
    text = verdict(read_run(run))
    assert "10.0 times smaller than the best constant's" in text
    assert "2.00 times larger than the linear emulator's" in text
    figures["test"]["linear"]["value"] = 0.2
    write(run / "validation.json", figures)
    assert "better surrogate" not in verdict(read_run(run))


def test_the_best_network_stands_beside_the_last_one_if_it_is_another(run: Path) -> None:
    found = read_run(run)
    assert [one.who for one in judged(found, "test")] == ["network", "best", "constant", "linear"]
    assert judged(found, "test")[1].label == "best network, after 10 batches"
    figures = json.loads((run / "validation.json").read_text())
    figures["best"]["batch"] = figures["report"]["batch"]
    write(run / "validation.json", figures)
    assert [one.who for one in judged(read_run(run), "test")] == ["network", "constant", "linear"]


def test_the_error_of_a_simulation_is_that_over_all_its_fields(run: Path) -> None:
    found = judged(read_run(run), "test")[0]
    u, q = (found.fields[name]["simulations"] for name in ("u", "q"))
    expected = sorted(((u[key] ** 2 + q[key] ** 2) / 2) ** 0.5 for key in u)
    assert found.each() == pytest.approx(expected)


def test_validation_errors_are_placed_where_the_history_reached_their_batch(run: Path) -> None:
    found = read_run(run)
    assert [x for x, _ in validation_pairs(found, "batches")] == [10, 30]
    assert [x for x, _ in validation_pairs(found, "seconds")] == [1.0, 3.0]
    assert [x for x, _ in validation_pairs(found, "simulations")] == [2, 6]


def test_fields_are_shown_by_what_they_have_of_a_grid(run: Path) -> None:
    examples = read_run(run).examples
    assert examples is not None
    grid, number = shown(examples, 0, "u"), shown(examples, 0, "q")
    assert grid.truth.shape == grid.prediction.shape == (4, 3, 3)
    assert number.truth.shape == number.prediction.shape == number.t.shape == (5,)
    assert (grid.label, number.label) == ("u (K)", "q")


def test_points_are_marked_by_what_became_of_them(run: Path) -> None:
    points = read_run(run).points
    assert points is not None
    clouds = {cloud.label: len(cloud.values) for cloud in point_clouds(points, ["a", "b"])}
    assert clouds == {
        "training, completed": 3,
        "partial": 1,
        "quarantined": 1,
        "failed": 1,
        "validation": 4,
        "test": 3,
    }


def test_speed_is_claimed_against_a_solver_of_equal_error_alone() -> None:
    coarser = OPPONENTS["coarser"]
    assert isinstance(coarser, list)
    text = speed_sentence(0.01, 2.0, coarser, 0)
    assert "error is no larger than its own the surrogate is 50.0 times faster" in text
    text = speed_sentence(0.01, 2.0, coarser, None)
    assert "the fair opponent is not known" in text
    assert "1.00 times slower" not in speed_sentence(None, 2.0, coarser, 0)
    assert "2.00 times slower" in speed_sentence(1.0, None, coarser, 0)


def test_phases_are_the_times_between_their_marks(run: Path) -> None:
    assert phases(read_run(run)) == {
        "starting up": 4.0,
        "until the first batch": 2.0,
        "training": 4.0,
        "ending": 2.0,
    }


ATTRIBUTION = {
    "ranks_s": [
        {"compute": 60.0, "gather": 5.0, "wait": 20.0, "start": 10.0, "snapshot": 5.0},
        {"compute": 40.0, "gather": 5.0, "wait": 20.0, "agree": 20.0, "start": 10.0, "other": 5.0},
    ],
    "waits_s": {"solver": 12.0, "network": 0.0, "start": 4.0, "reservoir": 4.0},
    "workers_s": {"computing": 300.0, "room": 60.0, "starting": 20.0, "idle": 20.0},
    "receivers_s": {"0": {"busy": 12.0, "idle": 88.0}},
    "side_by_side": {
        "seconds": 80.0, "waits_s": {"solver": 9.6}, "draws": 8000, "admitted": 7000,
        "produced": 0.7,
    },
}  # fmt: skip
ADVICE = "Training waited 12 % of the time, because 4 workers produce 70 % of what it can use."


def test_the_time_of_ranks_workers_and_receivers_is_shown_with_the_advice(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    write(run / "summary.json", {**summary, "attribution": ATTRIBUTION, "advice": ADVICE})
    text = Page(write_report([run]).read_text()).text
    assert ADVICE in text
    assert "rank 0: computing 60 %, gathering batches 5 %, waiting for the solvers 12 %" in text
    assert "rank 1: computing 40 %" in text
    assert "waiting for the other ranks 20 %" in text
    assert "waiting for the network" not in text
    assert "Time of all workers together: computing 75 %, out of credit: no room" in text
    assert "What training waited for" in text
    assert "Receivers" in text
    assert "training waited 12 % of it. Production was 70 % of what training could have" in text


def test_the_shares_of_a_rank_are_all_of_its_time() -> None:
    for rank in ATTRIBUTION["ranks_s"]:
        shares = rank_shares(rank, ATTRIBUTION["waits_s"])
        assert sum(shares.values()) == pytest.approx(1)
        assert shares["waiting for the solvers"] == pytest.approx(0.12)
    assert set(rank_shares({}, {}).values()) == {0.0}
    untold = rank_shares({"compute": 3.0, "wait": 1.0}, {})
    assert (untold["computing"], untold["everything else"]) == (0.75, 0.25)


def test_many_ranks_are_shown_by_their_mean(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    ranks = [{"compute": float(i), "gather": 10.0 - i} for i in range(10)]
    write(run / "summary.json", {**summary, "attribution": {"ranks_s": ranks}})
    text = Page(write_report([run]).read_text()).text
    assert "Time of the training processes: computing 45 %, gathering batches 55 %" in text


def test_what_production_was_is_left_out_where_training_takes_all_there_is() -> None:
    said = fit({"admitted": 70, "draws": 800, "waits_s": {}, "produced": None}, 40.0)
    assert said.endswith("training waited 0 % of it.")


def test_a_distribution_begins_at_nothing_and_ends_at_all() -> None:
    assert staircase([0.1, 0.2]) == ([0.1, 0.1, 0.2], [0.0, 0.5, 1.0])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.00"),
        (0.17499, "0.175"),
        (9.996, "10.0"),
        (85.14, "85.1"),
        (7251.8, "7,250"),
        (9.75e-8, "9.75e-08"),
        (0.0, "0"),
        (None, "unknown"),
        (float("nan"), "unknown"),
    ],
)
def test_measured_values_keep_three_digits(value: float | None, text: str) -> None:
    assert measured(value) == text


def test_very_many_times_are_said_in_words() -> None:
    assert [times(5.714), times(1790), times(1.79e6)] == ["5.71", "1,790", "1.79 million"]
