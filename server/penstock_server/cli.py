"""The command line: `penstock run | check | predict | rerun | demo | doctor | try`.

`penstock.command` calls `main`. Torch and Ray are imported by the commands that need them, so that
--help and check stay quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from penstock_server.cli_errors import FAILED, say, told
from penstock_server.config import Campaign, CampaignError, load

if TYPE_CHECKING:
    from penstock_server.supervisor import Outcome

app = typer.Typer(
    name="penstock",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # [fields] in a text is no markup
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

CampaignFile = Annotated[
    Path, typer.Argument(metavar="CAMPAIGN", help="The campaign file, TOML.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one key of the campaign file, such as training.ranks=2; repeatable.",
        show_default=False,
    ),
]
Runs = Annotated[Path, typer.Option(help="Where runs are kept: RUNS/NAME/ID.")]
Plain = Annotated[bool, typer.Option("--plain", help="Lines instead of the live display.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Nothing until the end.")]
DrawsPerSecond = Annotated[
    float,
    typer.Option(
        min=0.001,
        help="How many samples training draws per second; summary.json of an earlier run has it.",
    ),
]


def main() -> int:
    """Runs the command line of this process; gives the exit code."""
    try:
        app()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@app.callback(invoke_without_command=True)
def penstock(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    """Trains neural surrogates of numerical solvers while the solvers run.

    \b
    Start with:
      penstock doctor                    what this machine has, and what is missing
      penstock demo                      a heat solver trains a network, in minutes
      penstock try -- mpirun -n 2 ./solver   what a program of yours sends
      penstock check campaign.toml       what a campaign costs, before it starts
      penstock run campaign.toml         production and training in one go
      penstock predict RUN --params T0=300   ask the trained network
      penstock rerun RUN 17              one simulation once more, alone

    Each command says more with --help.
    """
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"penstock {installed('penstock')}")


@app.command(short_help="Run a campaign.")
def run(
    campaign: Annotated[
        Path | None,
        typer.Argument(metavar="CAMPAIGN", help="The campaign file, TOML.", show_default=False),
    ] = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on with an earlier run: its folder, or its id.",
            show_default=False,
        ),
    ] = None,
    plain: Plain = False,
    quiet: Quiet = False,
) -> None:
    """Run a campaign: solvers, stream, training and validation, to the end.

    \b
    Examples:
      penstock run campaign.toml
      penstock run campaign.toml --set training.ranks=2 --set design.simulations=50
      penstock run --resume runs/heat/20260101-120000-abcd

    Everything that a run leaves is in RUNS/NAME/ID: the resolved campaign, summary.json,
    history.csv, the model, pictures, checkpoints, logs. Ctrl-C stops it in order; --resume goes on
    from its newest checkpoint.

    \b
    Exit codes: 0 completed, 1 failed, 2 the campaign file is wrong, 130 stopped with Ctrl-C.
    """
    with told():
        folder = _earlier_run(resume, runs) if resume is not None else None
        chosen = load(_campaign_file(campaign, folder), overrides or ())
        outcome = _attend(chosen, runs, folder, plain, quiet)
        from penstock_server.demo import show_end

        show_end(Console(), outcome.summary, outcome.folder)
        if not outcome.ok:
            say(f"The run did not complete; its logs are in {outcome.folder / 'logs'}.")
            raise typer.Exit(FAILED)


@app.command(short_help="What a campaign costs, before it starts.")
def check(
    campaign: CampaignFile,
    overrides: Overrides = None,
    draws_per_second: DrawsPerSecond = 1000.0,
) -> None:
    """Check a campaign file, say what it costs and what would be started; start nothing.

    \b
    Examples:
      penstock check campaign.toml
      penstock check campaign.toml --set reservoir.capacity=20000

    Refuses a campaign whose reservoir or processes do not fit into this machine, with the
    arithmetic. The useful number of workers needs the time of a step: `penstock try` measures it.

    \b
    Exit codes: 0 it can run here, 1 it cannot, 2 the campaign file is wrong.
    """
    with told():
        from penstock_server import check_report

        chosen = load(campaign, overrides or ())
        machine = check_report.examine(chosen)
        console = Console()
        console.print(Text(f"{campaign}: the campaign {chosen.name} is valid.", "green"))
        for text in check_report.report(chosen, machine, draws_per_second):
            console.print(Text(text, "" if text.startswith(" ") else "bold"), soft_wrap=True)
        refusals = check_report.refusals(chosen, machine)
        for refusal in refusals:
            say(refusal)
        if refusals:
            raise typer.Exit(FAILED)


@app.command(short_help="Ask a trained network for fields.")
def predict(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's folder or id, or a model's folder.")
    ],
    params: Annotated[
        list[str] | None,
        typer.Option(
            "--params",
            metavar="NAME=VALUE,..",
            help="One set of parameters, in their units; more --params add to it.",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--csv", help="Many sets: a header of names, one set a line.", show_default=False
        ),
    ] = None,
    t: Annotated[
        str | None,
        typer.Option("--t", metavar="T,..", help="The times.", show_default=False),
    ] = None,
    times: Annotated[
        int, typer.Option(min=2, help="Without --t: so many, evenly over the trained range.")
    ] = 5,
    out: Annotated[Path, typer.Option(help="The folder that the files go to.")] = Path(
        "prediction"
    ),
    runs: Runs = Path("runs"),
) -> None:
    """Predict fields with the network of a run, and write them to HDF5 and VTU with a picture.

    \b
    Examples:
      penstock predict runs/demo/ID --params T0=300,T1=400,T2=200,T3=350,T4=150
      penstock predict runs/demo/ID --csv points.csv --t 0.1,0.5,1 --out fields

    Warns where a value lies outside the box that the network was trained in. prediction.h5 has
    all fields; the .vtu files, one a set of parameters and time, open in ParaView on a uniform grid
    over the unit box, because a campaign knows shapes and no coordinates.

    \b
    Exit codes: 0 predicted, 1 it cannot be, 2 there is no such run.
    """
    with told():
        from penstock_server import predict as asking

        if (params is None) == (table is None):
            raise asking.PredictError("Give either --params NAME=VALUE,.. or --csv FILE.")
        folder = Path(run)
        surrogate = asking.open_model(folder if folder.is_dir() else _earlier_run(run, runs))
        names = surrogate.problem.parameter_names
        given = (
            asking.read_parameters(table, names)
            if table is not None
            else asking.parse_parameters(params or (), names)
        )
        chosen = asking.parse_times(t) if t is not None else None
        prediction = asking.predict(surrogate, given, chosen, times)
        for warning in prediction.warnings:
            say(warning)
        console = Console()
        for line in asking.describe(prediction, asking.write(prediction, out)):
            console.print(Text(line), soft_wrap=True)


@app.command(short_help="Repeat one simulation of a run, alone.")
def rerun(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder or id.")],
    simulation: Annotated[int, typer.Argument(metavar="SIM", min=0, help="The simulation's id.")],
    seconds: Annotated[float, typer.Option(min=1, help="End it after so long.")] = 3600.0,
    runs: Runs = Path("runs"),
) -> None:
    """Repeat one simulation of a run alone, with the same inputs, seed and command.

    \b
    Example:
      penstock rerun runs/heat/20260101-120000-abcd 17

    Says what the simulation sent this time, what a campaign would refuse of it, and the end of its
    standard error if something is wrong. Nothing is trained, and the run stays as it is.

    Exit code 0 if a campaign would take the simulation.
    """
    with told():
        from penstock_server.rerun import rerun as repeat

        folder = _earlier_run(run, runs)
        raise typer.Exit(repeat(folder, simulation, Console(), seconds))


@app.command(short_help="A heat solver trains a network.")
def demo(
    numpy: Annotated[
        bool, typer.Option("--numpy", help="The numpy solver, also where FEniCSx is there.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="A fifth of the simulations; a larger error.")
    ] = False,
    runs: Runs = Path("runs"),
    plain: Plain = False,
    quiet: Quiet = False,
) -> None:
    """Solve the heat equation 216 times and train a network on it meanwhile.

    \b
    Examples:
      penstock demo
      penstock demo --numpy --quick

    Uses FEniCSx under MPI if this machine has both, else a numpy solver, and says why. Ends with
    the network's validation error beside those of the best constant and of a linear emulator, and
    with a picture; exit code 0 only if the network beats the constant.
    """
    with told():
        from penstock_server.demo import demo as show_off

        code = show_off(
            lambda chosen: _attend(chosen, runs, None, plain, quiet),
            Console(),
            numpy=numpy,
            quick=quick,
        )
        raise typer.Exit(code)


@app.command(short_help="What this machine has and lacks.")
def doctor() -> None:
    """Say what this machine has for Penstock, what is missing and how to get it.

    \b
    Example:
      penstock doctor

    Exit code 0 if `penstock run` works here, at least with numpy solvers.
    """
    with told():
        from penstock_server.doctor import doctor as examine

        raise typer.Exit(examine())


@app.command(
    "try",
    short_help="What a program of yours sends.",
    context_settings={"allow_interspersed_args": False},
)
def try_(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND...",
            help="The program and its arguments. {python} in it is the interpreter with DOLFINx.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="End the trial after so long.")] = 60.0,
    simulations: Annotated[int, typer.Option(min=1, help="How many to hand out.")] = 2,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LOW:HIGH",
            help="A parameter that the program looks for, drawn from a range; repeatable.",
            show_default=False,
        ),
    ] = None,
    campaign: Annotated[
        Path | None,
        typer.Option(help="Compare with this campaign file, and take its inputs and command."),
    ] = None,
    overrides: Overrides = None,
    draws_per_second: DrawsPerSecond = 1000.0,
) -> None:
    """Run a program against a server that counts, to see what a campaign would get from it.

    \b
    Examples:
      penstock try -- mpirun -n 4 ./solver --size 64
      penstock try --parameter nu=0.01:0.1 -- python3 solver.py
      penstock try --campaign campaign.toml

    The program needs the few lines of the client (import penstock), and no campaign file: its
    fields, global shapes, parts, ghosts and missing values, time per step, bytes and NaNs are
    found out, and a [fields] section for the campaign file is proposed, with the useful number of
    workers.

    Exit code 0 if a campaign can take the program as it is.
    """
    with told():
        from penstock_server.try_solver import try_solver

        code = try_solver(
            command or (),
            Console(),
            campaign=load(campaign, overrides or ()) if campaign is not None else None,
            parameters=parameter or (),
            simulations=simulations,
            seconds=seconds,
            draws_per_s=draws_per_second,
        )
        raise typer.Exit(code)


def _attend(
    campaign: Campaign, runs: Path, resume: Path | None, plain: bool, quiet: bool
) -> Outcome:
    """Runs a campaign and shows it meanwhile."""
    from penstock_server.check_report import shared_refusal
    from penstock_server.display import Display
    from penstock_server.interpreters import SolverError, solver_command

    solver_command(campaign)  # before torch and Ray are loaded
    refusal = shared_refusal(campaign)
    if refusal is not None:
        raise SolverError(refusal)
    console = Console()
    shown = Display(console, plain=plain, quiet=quiet, planned_batches=campaign.planned_batches)
    try:
        with shown:
            shown.on_message(
                f"Starting {campaign.name}; its files are below {runs / campaign.name}."
            )
            from penstock_server.supervisor import run_campaign  # seconds: torch and Ray

            return run_campaign(
                campaign,
                runs,
                resume=resume,
                on_status=shown.on_status,
                on_message=shown.on_message,
            )
    except KeyboardInterrupt:
        known = sorted((runs / campaign.name).glob("*/campaign.toml"))
        if known:
            say(f"To go on with it: penstock run --resume {known[-1].parent}")
        raise


def _earlier_run(run: str, runs: Path) -> Path:
    """The folder of a run that was given by its path or by its id."""
    candidates = [Path(run), *sorted(runs.glob(f"*/{run}"))]
    found = next((path for path in candidates if (path / "campaign.toml").is_file()), None)
    if found is not None:
        return found
    known = sorted(str(path.parent) for path in runs.glob("*/*/campaign.toml"))
    newest = f" The newest is {known[-1]}." if known else ""
    raise CampaignError(f"There is no run {run} here, nor below {runs}.{newest}")


def _campaign_file(campaign: Path | None, folder: Path | None) -> Path:
    if campaign is not None:
        return campaign
    if folder is not None:
        return folder / "campaign.toml"
    raise CampaignError(
        "Give a campaign file, or --resume RUN to go on with a run: penstock run campaign.toml."
    )
