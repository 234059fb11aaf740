"""`penstock wrap -- CMD`: a worker around a program that reads and writes files.

For every simulation a folder in memory is made, the templates are filled into it and the program
runs there; each output file is sent as soon as it is complete and then removed, so that no field
touches a disk and the program stays as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from penstock.errors import PenstockError
from penstock.wrapping.request import settings
from penstock.wrapping.settings import WrapError
from penstock.wrapping.worker import work

_USAGE = "penstock wrap --field NAME=FILES [options] -- COMMAND..."
_EPILOG = """\
templates
  ${alpha} in an input file or in the command is the parameter alpha, with all its digits;
  ${T0:.6e} and ${n:d} are formatted as in Python; $${ is a literal ${. Besides the parameters there
  are ${seed}, ${simulation}, ${attempt}, ${role}, ${steps} (of --steps), ${folder} (where the
  program runs) and ${here} (where this was started). In a shell, put single quotes around them.

output files
  --field temperature='out_*.npy'      a file a step; * has the step's number or time
  --field T='all.h5:/fields/T'         all steps in one file, on the first axis
  --field T='result.vtu:T' --steps 1   a steady problem
  --field probes='probes.csv:p1,p2'    columns of a table, a row a step
  .npy .npz .csv .txt .dat are read by numpy, .h5 .hdf5 by h5py, .vtu .vtk by meshio.

  A file is complete when the next one of its pattern is there, or when the program has ended with
  exit code 0; with --done, when its marker is there. A step is sent when all of its fields are
  complete, and its files are removed. What is in one file for all steps is sent at the end.

examples
  penstock wrap --template heat.nml.template --field temperature='out_*.npy' \\
      --parameter alpha=0.5 -- ./heat heat.nml

  in a campaign:
  command = ["{python}", "-m", "penstock", "wrap", "--template", "heat.nml.template",
             "--field", "temperature=out_*.npy", "--", "./heat", "heat.nml"]

Without a campaign the program runs once, with the given parameters; what it would have sent is
checked and dropped. `penstock try -- penstock wrap ...` shows more.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line and serves simulations; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    cut = words.index("--") if "--" in words else len(words)  # the command may have one, too
    options = parser().parse_args(words[:cut])
    try:
        return work(settings(options, words[cut + 1 :]))
    except KeyboardInterrupt:
        return 130
    except PenstockError as error:
        print(f"penstock wrap: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, WrapError) else 1


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="penstock wrap",
        usage=_USAGE,
        description="Serve a campaign with a program that reads an input file and writes files.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    several = result.add_argument_group("what the program reads (repeatable)")
    several.add_argument(
        "--template",
        action="append",
        default=[],
        metavar="FILE[=NAME]",
        help="fill it into the program's folder as NAME; else its own name, without .template",
    )
    several.add_argument(
        "--link",
        action="append",
        default=[],
        metavar="PATH[=NAME]",
        help="a link in the program's folder to a file or folder, such as a mesh",
    )
    several.add_argument("--stdin", metavar="NAME", help="its standard input, one of these")
    read = result.add_argument_group("what it writes")
    read.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="NAME=FILES[:ARRAY]",
        help="the files with a field of the campaign, * for the step; repeatable",
    )
    read.add_argument("--steps", type=int, metavar="N", help="how many steps it writes; checked")
    read.add_argument(
        "--dt",
        type=float,
        metavar="DT",
        help="time of a step: DT times the number in the name, or times 0, 1, ... "
        "without one; default 1, so that names may hold times",
    )
    read.add_argument("--t0", type=float, default=0.0, metavar="T", help="is added to it")
    read.add_argument("--times", metavar="FILE[:ARRAY]", help="a file with the time of each step")
    read.add_argument(
        "--done",
        metavar="FILES",
        help="a file that the program writes when an output is complete: one a step "
        "(out_*.done), or one for all",
    )
    read.add_argument(
        "--at-once",
        action="store_true",
        help="files are complete when they appear: the program renames them",
    )
    limits = result.add_argument_group("limits")
    limits.add_argument(
        "--timeout",
        type=float,
        metavar="S",
        help="seconds for one run, without what it waited for the server",
    )
    limits.add_argument(
        "--room",
        metavar="SIZE",
        help="memory for one run's files, such as 500MB; default 1 GB, or a quarter "
        "of what is free; a program ahead of the server is halted there",
    )
    limits.add_argument(
        "--memory",
        type=Path,
        metavar="FOLDER",
        help="where the program's folder is made; default /dev/shm",
    )
    alone = result.add_argument_group("a run without a campaign")
    alone.add_argument(
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of it; repeatable",
    )
    return result
