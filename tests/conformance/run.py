"""Runs a client's program against the scripted server: `python run.py -- ./my_program`.

Prints a line for each check on each number of ranks, and exits with 1 if one fails.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from dataclasses import replace

from scenarios import SCENARIOS
from stage import play

from penstock_server.interpreters import find_starter


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="NAME",
                        help="a check by its name; may be repeated")  # fmt: skip
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2],
                        help="numbers of MPI ranks to be tried; default 1 2")  # fmt: skip
    parser.add_argument("--limit", type=float, metavar="SECONDS",
                        help="for each check; default 30, too few on a busy machine")  # fmt: skip
    parser.add_argument("--uses", action="append", default=[], choices=("bunches", "memory"),
                        help="what clients may do, and this one must; may be repeated")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="the checks, without running them")
    parser.add_argument("command", nargs="*", help="the program and its arguments, after --")
    options = parser.parse_args()
    checks = [s for s in SCENARIOS if not options.only or s.name in options.only]
    if options.limit:
        checks = [replace(s, timeout_s=options.limit) for s in checks]
    if options.list:
        print("\n".join(f"{s.name:24} {s.says}" for s in checks))
        return 0
    if not options.command or not checks:
        names = ", ".join(s.name for s in SCENARIOS)
        parser.error(f"A program is needed after --, and --only has to be one of {names}.")
    starter = find_starter()
    if starter is None and max(options.ranks) > 1:
        parser.error("There is no mpirun on PATH. Install an MPI, or say --ranks 1.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the program ends as well
    failures = total = 0
    for scenario in checks:
        for n_parts in (n for n in options.ranks if n in scenario.ranks):
            prefix = starter.argv(n_parts) if starter is not None and n_parts > 1 else []
            began = time.monotonic()
            problems = play(scenario, options.command, n_parts, prefix, options.uses)
            total, failures = total + 1, failures + bool(problems)
            mark = "FAIL" if problems else "ok"
            seconds = time.monotonic() - began
            print(f"{mark:4} {scenario.name}, {n_parts} rank(s): {scenario.says} ({seconds:.1f} s)")
            for problem in dict.fromkeys(problems):
                print(f"       {problem}")
            sys.stdout.flush()
    if not total:
        parser.error("None of these checks is for so many ranks; golden frames need two.")
    print(f"{total - failures} of {total} checks passed: {shlex.join(options.command)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
