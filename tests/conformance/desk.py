"""A coordinator that follows a script and judges what it is asked: requests in, answers out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from scenarios import Scenario


class Desk:
    """Answers the control path of one worker; `problems` at the end."""

    def __init__(
        self, scenario: Scenario, worker: str, n_parts: int, addresses: Mapping[str, str]
    ) -> None:
        self.problems: list[str] = []
        self.previous: list[dict[str, Any]] = []
        self.welcomed = self.left = False
        self.declared: dict[str, Any] | None = None
        self.reopening = False
        self._scenario, self._worker, self._n_parts = scenario, worker, n_parts
        self._addresses = addresses
        self._last: tuple[int, bytes] = (0, b"")
        self._copies = self._waited = self._handed = self._sequence = 0
        self._answers: dict[int, dict[str, Any]] = {}

    def take(self, frame: bytes) -> list[bytes]:
        """The answers to one request."""
        faults = self._scenario.faults
        try:
            request = json.loads(frame.decode())
            number = int(request["request"])
        except (ValueError, KeyError, TypeError) as error:
            return self._blame(f"A request came that is no JSON object with a number: {error}.")
        if request.get("from") != f"worker/{self._worker}":
            self._blame(f"A request is from {request.get('from')!r}.")
        if request.get("kind") == "fail":  # the last word of any part, by its own numbers
            self._copies = faults.deaf
        else:
            self._count(number, frame)
        if self._copies < faults.deaf:
            return []
        answer = self._answer(request)
        first = self._copies == faults.deaf
        if faults.desk_reopens and answer["kind"] == "assignment" and first:
            self.reopening = True
            return []  # heard, and the answer is lost with the socket
        right = json.dumps({**answer, "request": number}).encode()
        if not faults.wrong_answers:
            return [right]
        wrong = json.dumps({"kind": "over", "request": number - 1}).encode()
        return [b"\xff{", wrong, b'["request"]', json.dumps({"kind": "over"}).encode(), right]

    def _count(self, number: int, frame: bytes) -> None:
        if number == self._last[0] and frame != self._last[1]:
            self._blame(f"The request {number} was repeated with other words.")
        if number < self._last[0]:
            self._blame(f"The request {number} came after {self._last[0]}.")
        self._copies = self._copies + 1 if number == self._last[0] else 0
        self._last = (number, frame)

    def _blame(self, problem: str) -> list[bytes]:
        self.problems.append(problem)
        return []

    def _answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        kind = request.get("kind")
        if request.get("worker") != self._worker:
            self._blame(f"The request {kind!r} names the worker {request.get('worker')!r}.")
        if kind == "hello":
            return self._hello(request)
        if not self.welcomed:
            self._blame(f"The request {kind!r} came before hello.")
        if kind == "fields" and self._scenario.undeclared:
            self._declare(request["fields"])
            return {"kind": "fields"}
        if kind == "book":
            return {"kind": "book", "shards": self._book()}
        if kind == "fail":
            return {"kind": "noted"}
        if kind == "next":
            return self._next(request)
        self._blame(f"The request {kind!r} is not of a worker.")
        return {"kind": "refused", "why": "unknown request"}

    def _hello(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if self._scenario.faults.refuse_hello:
            return {"kind": "refused", "why": self._scenario.faults.refuse_hello}
        for name, kind in (("pid", int), ("host", str), ("parts", int), ("client", str)):
            if not isinstance(request.get(name), kind):
                self._blame(f"hello has no {name}.")
        if request.get("parts") != self._n_parts:
            self._blame(f"hello says {request.get('parts')} parts, started were {self._n_parts}.")
        if request.get("agent", "") is not None:
            self._blame("hello names an agent, and none started the program.")
        self.welcomed = True
        stream = {"segment_steps": 1, "window_bytes": 1 << 26, **self._scenario.stream}
        if self._scenario.undeclared:
            stream["undeclared"] = True
        return {
            "kind": "welcome", "campaign": self._scenario.campaign, "name": "conformance \u00e9",
            "fields": {} if self._scenario.undeclared else self._scenario.fields,
            "stream": {**stream, "later": None}, "shards": self._book(),
        }  # fmt: skip

    def _book(self) -> dict[str, Any]:
        return {s: {"address": a, "epoch": 1} for s, a in self._addresses.items()}

    def _next(self, request: Mapping[str, Any]) -> dict[str, Any]:
        sequence = int(request["sequence"])
        if sequence in self._answers:
            return self._answers[sequence]
        if self._waited < self._scenario.faults.waits and not request.get("leaving"):
            self._waited += 1
            return {"kind": "wait", "retry_s": 0.1}
        self._waited = 0
        if sequence != self._sequence + 1:
            self._blame(f"The sequence {sequence} came after {self._sequence}.")
        self._sequence = sequence
        if self._handed:
            self._note(request.get("previous"), bool(request.get("leaving")))
        elif request.get("previous") is not None:
            self._blame("The first request tells of a simulation before.")
        self.left = self.left or bool(request.get("leaving"))
        if self.left or self._handed == len(self._scenario.assignments):
            self._answers[sequence] = {"kind": "over"}
        else:
            given = self._scenario.assignments[self._handed]
            self._handed += 1
            self._answers[sequence] = {
                "kind": "assignment", **given, "shards": list(self._addresses), "later": [],
            }  # fmt: skip
        return self._answers[sequence]

    def _note(self, previous: Any, leaving: bool) -> None:
        if len(self.previous) == self._handed:
            if previous is not None:
                self._blame("The end of a simulation was told twice.")
            return
        given = self._scenario.assignments[len(self.previous)]
        if not isinstance(previous, dict):
            self._blame(f"How simulation {given['simulation']} ended was not told.")
            previous = {}
        for name in ("simulation", "lease"):
            if previous and previous.get(name) != given[name]:
                self._blame(f"previous has the {name} {previous.get(name)}, not {given[name]}.")
        self.previous.append(previous)

    def _declare(self, fields: Mapping[str, Any]) -> None:
        contract = self._scenario.contract
        for name, spec in fields.items():
            role = "input" if name in contract.inputs else "state"
            expected = (list(contract.shapes[name]), "float64", role)
            found = (spec.get("shape"), str(np.dtype(spec.get("dtype"))), spec.get("role"))
            if found != expected:
                self._blame(f"Field {name!r} was declared as {found}, expected was {expected}.")
        self.declared = dict(fields)
