"""Whether the kit notices: plays checks against C clients that were made wrong on purpose.

`make mutants` compiles the C client once for each row below with one expression replaced, and
expects that the named check fails. Exits with 1 if a wrong client passed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from scenarios import SCENARIOS
from stage import play

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "clients" / "c"


class Mutant(NamedTuple):
    """A file of the C client, what is replaced in it by what, and the check that has to fail."""

    file: str
    right: str
    wrong: str
    check: str


MUTANTS = (
    Mutant("wire.h", "put_number(frame + 28, h->step, 4);", "", "plain"),
    Mutant("wire.h", "put_number(frame + 40, h->geometry, 4);", "", "plain"),
    Mutant("wire.h", "memset(row + 3, 0, 5);", "memset(row + 3, 1, 5);", "plain"),
    Mutant("json.h", "number = strtoll(value->string, &end, 10);",
           "number = (long long)strtod(value->string, &end);", "numbers"),
    Mutant("layout.h", "kept[i] = first + i * step;", "kept[i] = i * step;", "reduced"),
    Mutant("layout.h", "s->take[i] = flat;", "s->take[i] = (int64_t)i;", "components"),
    Mutant("sender.h", "if (h->step == s->greeting) {", "if (1) {", "old-ack"),
    Mutant("sender.h", "h->kind == RESYNC && (s->welcome", "h->kind == RESYNC && (1", "old-resync"),
    Mutant("sender.h", "h->kind == RESYNC && (s->welcome", "0 && (s->welcome", "forgotten"),
    Mutant("sender.h", "sender_post(s, message_again(s->announcements[i].said));",
           "PENSTOCK_OK;", "forgotten"),
    Mutant("sender.h", "code = sender_post(s, window_pop(&s->unacked));",
           "message_free(window_pop(&s->unacked));", "forgotten"),
    Mutant("sender.h", "s->next = 0;", "", "forgotten"),
    Mutant("sender.h", "s->lending = s->lends && (h->flags & BORROWS);", "s->lending = 1;",
           "not-borrowed"),
    Mutant("sender.h", "put_number(place, p->memory->place, 8);",
           "put_number(place, p->memory->place + 64, 8);", "lent"),
    Mutant("sender.h", "lends ? LENT : 0", "0", "lent"),
    Mutant("arena.h", "a->used += aligned;", "", "lent"),
    Mutant("arena.h", "put_number(a->offer + 16, size, 8);", "", "lent"),
    Mutant("arena.h", "if (!b || --b->holders) return;", "if (!b) return;", "lent"),
    Mutant("spans.h", "of->last = of->next, of->next = NULL;", "of->last = of->next;", "lent"),
    Mutant("line.h", "wire_set_step(m->frame, l->n);", "", "bunches"),
    Mutant("line.h", "l->link->bunch_bytes / (of", "16 * l->link->bunch_bytes / (of", "bunches"),
    Mutant("shipment.h", "+ at * s->rows[i].n_bytes", "+ 0 * at", "bunches"),
    Mutant("sender.h", "if (now >= probe_at) {", "if (0) {", "credit"),
    Mutant("sender.h", "return s->unacked.n_bytes < s->window_bytes;", "return 1;", "window"),
    Mutant("sender.h", "return !s->unacked.n;", "return 1;", "lost-acks"),
    Mutant("standing.h", "if (granted > of->granted) of->granted = granted;",
           "of->granted = 1000 + 0 * granted;", "credit"),
    Mutant("simulation.h", "if (!wanted || wanted->kind != JSON_ARRAY) return 1;", "return 1;",
           "wanted"),
    Mutant("simulation.h", "code = refusal ? simulation_last(sim, FAIL, 0) :", "code =", "refused"),
    Mutant("simulation.h", "ordinal = segment / (int64_t)sim->n_lines;", "ordinal = -1;",
           "credit"),
    Mutant("simulation.h", "sim->lines[(size_t)segment % sim->n_lines]", "sim->lines[0]",
           "plain"),
    Mutant("simulation.h", "h.plan = sim->link->plan, h.t = t;", "h.plan = sim->link->plan;",
           "plain"),
    Mutant("sending.h", "if (sim->calls++ % sim->link->every) return PENSTOCK_OK;",
           "sim->calls++;", "reduced"),
    Mutant("coordinator.h", "if (!waits) return PENSTOCK_OK;", "return PENSTOCK_OK;", "waiting"),
    Mutant("asker.h", "json_integer(json_get(reply, \"request\"), -1) == a->number", "1",
           "wrong-answers"),
    Mutant("asker.h", "if (now - a->sent_s >= RESEND_S) code = asker_send(a, request, why);", "",
           "deaf-coordinator"),
    Mutant("coordinator.h", "if (leaving) text_put", "if (0) text_put", "plain"),
)  # fmt: skip


def main() -> int:
    by_name = {s.name: replace(s, timeout_s=20.0) for s in SCENARIOS}
    missed = 0
    for mutant in MUTANTS:
        with tempfile.TemporaryDirectory() as folder:
            program = build(mutant, Path(folder))
            problems = play(by_name[mutant.check], [str(program)], 1, [])
        missed += not problems
        what = " ".join(mutant.right.split())[:60]
        print(f"{'noticed' if problems else 'MISSED':8} {mutant.check:18} {mutant.file}: {what}")
        print(f"         {problems[0]}" if problems else "", flush=True)
    print(f"{len(MUTANTS) - missed} of {len(MUTANTS)} wrong clients were noticed.")
    return 1 if missed else 0


def build(mutant: Mutant, folder: Path) -> Path:
    """The conformance program with the wrong client."""
    shutil.copytree(CLIENT, folder / "c")
    path = folder / "c" / "source" / mutant.file
    text = path.read_text()
    if text.count(mutant.right) != 1:
        raise SystemExit(f"{mutant.file} does not have {mutant.right!r} once; correct MUTANTS.")
    path.write_text(text.replace(mutant.right, mutant.wrong))
    program = folder / "program"
    source = Path(__file__).parent / "programs" / "conformance.c"
    subprocess.run(
        ["cc", "-std=c99", "-O0", "-w", f"-I{folder / 'c'}", str(source),
         str(folder / "c" / "penstock.c"), "-lzmq", "-lm", "-o", str(program)],
        check=True,
    )  # fmt: skip
    return program


if __name__ == "__main__":
    sys.exit(main())
