"""CURVE on the way of a step: who has the session's key streams, all others are kept out."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq
from scripted import ReceiverProcess, ScriptedCoordinator, assignment, wait_for, welcome

import penstock
from penstock import handshakes
from penstock.control import Asker, NoAnswer
from penstock.keys import ClientKeys
from penstock_server.curve import KeyFiles, make_keys

pytestmark = pytest.mark.timeout(90)
ROOT = Path(__file__).parents[2]
SHAPE = (8, 6)
STEPS = 5


class Secured:
    """A coordinator and a receiver with keys; `strange` are those of another campaign."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = make_keys(folder / "keys")
        self.strange = make_keys(folder / "strange")
        self.coordinator = ScriptedCoordinator({}, [], self.keys.server)
        self.coordinator.start()
        self.receiver = ReceiverProcess(
            folder,
            self.coordinator.address,
            slots=4096,
            max_steps=200,
            most_waiting=1,  # as with large steps of three workers and more
            server_keys=self.keys.server,
            client_keys=self.keys.client,
        )
        self.coordinator.welcome = welcome([self.receiver])
        wait_for(lambda: "0" in self.coordinator.reports, what="the receiver, let in by its key")
        self.begun = 0

    def work(self, n: int) -> list[int]:
        """n more simulations for whoever asks."""
        new = list(range(self.begun, self.begun + n))
        self.begun += n
        self.coordinator.assignments += [assignment(s, ["0"]) for s in new]
        return new

    def refused(self, by: str = "receiver") -> float:
        """Handshakes that failed there."""
        if by == "coordinator":
            return self.coordinator.guard.counts()["handshakes_refused"]
        return float(self.coordinator.reports["0"]["counters"]["handshakes_refused"])

    def forged(self) -> str:
        """A file with the server's true public key, which is no secret, and keys of one's own."""
        own = ClientKeys.read(self.strange.client)
        theirs = ClientKeys.read(self.keys.client)
        path = self.folder / "forged"
        if not path.exists():
            path.touch(0o600)
            path.write_text(
                f"client_public = {own.client_public.decode()}\n"
                f"client_secret = {own.client_secret.decode()}\n"
                f"server_public = {theirs.server_public.decode()}\n"
            )
        return str(path)

    def close(self) -> None:
        self.receiver.stop()
        self.coordinator.stop()


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    secured = Secured(tmp_path_factory.mktemp("secured"))
    yield secured
    secured.close()


@pytest.fixture
def secured(standing: Secured, monkeypatch: pytest.MonkeyPatch) -> Secured:
    monkeypatch.setenv("PENSTOCK_COORDINATOR", standing.coordinator.address)
    monkeypatch.setenv("PENSTOCK_KEYS", standing.keys.client)
    monkeypatch.setenv("PENSTOCK_WORKER", f"w-{os.urandom(4).hex()}")
    return standing


@pytest.fixture
def stranger() -> Iterator[zmq.Socket[bytes]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context.socket(zmq.DEALER)
    context.destroy(linger=0)


def solve(steps: int = STEPS) -> None:
    with penstock.connect() as link:
        for sim in link.simulations():
            for step in range(steps):
                sim.send(0.1 * step, u=np.full(SHAPE, sim.id + step, dtype="f4"))


def key_texts(*files: KeyFiles) -> set[str]:
    texts = [Path(path).read_text() for f in files for path in (f.server, f.client)]
    return {line.split()[2] for text in texts for line in text.splitlines() if " = " in line}


def test_with_the_key_everything_arrives(secured: Secured) -> None:
    before = secured.refused(), secured.refused("coordinator")
    simulations = secured.work(4)
    solve()
    wait_for(lambda: secured.coordinator.delivered >= set(simulations), what="the delivery")
    assert (secured.refused(), secured.refused("coordinator")) == before


@pytest.mark.parametrize("file", ["none", "strange", "forged"])
def test_a_stranger_at_the_data_socket_is_counted_and_the_campaign_goes_on(
    secured: Secured, stranger: zmq.Socket[bytes], file: str
) -> None:
    """none: no key. strange: of another campaign, or an earlier session. forged: own keys."""
    if file != "none":
        path = secured.forged() if file == "forged" else secured.strange.client
        ClientKeys.read(path).put_on(stranger)
    before = secured.refused()
    simulations = secured.work(4)
    stranger.connect(secured.receiver.settings.address)
    stranger.send(b"PNST")
    solver = threading.Thread(target=solve, daemon=True)
    solver.start()
    wait_for(lambda: secured.refused() > before, what="the count")
    solver.join(30)
    wait_for(lambda: secured.coordinator.delivered >= set(simulations), what="the delivery")
    counters = secured.coordinator.reports["0"]["counters"]
    assert not counters.get("malformed") and not counters.get("foreign")  # nothing came through
    assert not stranger.poll(0)
    assert secured.receiver.process.poll() is None, secured.receiver.log()


def test_the_log_tells_of_strangers_and_of_no_key(secured: Secured) -> None:
    with socket.create_connection(_place(secured.receiver.settings.address)) as stranger:
        stranger.sendall(b"GET / HTTP/1.0\r\n\r\n" * 8)
        wait_for(lambda: secured.refused() > 0, what="the count")
    wait_for(lambda: "handshakes refused so far" in secured.receiver.log(), what="the log's line")
    log = secured.receiver.log()
    assert not [key for key in key_texts(secured.keys, secured.strange) if key in log]


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("none", "wants the campaign's key, and PENSTOCK_KEYS names no key file"),
        ("strange", "is of another campaign, or of an earlier session"),
        ("forged", "does not accept the key in .*forged"),
    ],
)
def test_a_client_that_is_not_let_in_ends_with_the_reason(
    secured: Secured, monkeypatch: pytest.MonkeyPatch, file: str, words: str
) -> None:
    monkeypatch.setattr(handshakes, "UNCERTAIN_S", 1.0)
    path = {"none": "", "strange": secured.strange.client, "forged": secured.forged()}[file]
    monkeypatch.setenv("PENSTOCK_KEYS", path)
    before = secured.refused("coordinator")
    with pytest.raises(penstock.KeyRefused, match=words) as refusal:
        penstock.connect()
    assert isinstance(refusal.value, penstock.ConnectionLost)
    assert not [k for k in key_texts(secured.keys, secured.strange) if k in str(refusal.value)]
    wait_for(lambda: secured.refused("coordinator") > before, what="the count")


def test_a_client_with_a_key_for_a_server_that_has_none_is_told(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ScriptedCoordinator({}, [])
    plain.start()
    monkeypatch.setenv("PENSTOCK_COORDINATOR", plain.address)
    with pytest.raises(penstock.KeyRefused, match=r"has no keys, and PENSTOCK_KEYS names .*client"):
        penstock.connect()
    plain.stop()


def test_an_agent_without_the_key_ends_with_the_reason(secured: Secured, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "penstock.agent", "--coordinator", secured.coordinator.address,
            "--agent", "a1", "--log-dir", str(tmp_path), "--", "true",
        ],
        env={**os.environ, "PENSTOCK_KEYS": ""}, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "wants the campaign's key" in done.stderr


def test_a_server_that_is_not_there_is_not_taken_for_one_that_refuses(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakes, "UNCERTAIN_S", 0.2)
    with (
        Asker("tcp://127.0.0.1:9", "t", resend_s=0.1, keys=ClientKeys.from_environment()) as asker,
        pytest.raises(NoAnswer),
    ):
        asker.ask("hello", timeout_s=1.0)


def test_a_restarted_receiver_has_the_keys_and_its_clients_come_back(secured: Secured) -> None:
    simulations = secured.work(3)
    solver = threading.Thread(target=solve, kwargs={"steps": 40}, daemon=True)
    solver.start()
    wait_for(lambda: bool(secured.coordinator.requests))
    secured.receiver.kill()
    secured.receiver.start()
    solver.join(60)
    assert not solver.is_alive()
    wait_for(lambda: secured.coordinator.delivered >= set(simulations), what="the delivery")


class Curt:
    """Ends every connection: at once (a tunnel to nobody), or, as libzmq may, before its greeting
    has left, when the other side's mechanism came first and is not `mechanism`."""

    def __init__(self, mechanism: bytes) -> None:
        self._mechanism = mechanism
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.ended = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            with line, contextlib.suppress(ConnectionError):
                if self._mechanism:
                    self._greet(line)
            self.ended += 1

    def _greet(self, line: socket.socket) -> None:
        come = b""
        line.sendall(handshakes.SIGNATURE)
        line.settimeout(0.2)
        try:
            while len(come) <= len(handshakes.SIGNATURE):
                come += line.recv(64) or bytes(64)
        except TimeoutError:
            line.sendall(b"\x01" + self._mechanism.ljust(52, b"\0"))
            line.recv(64)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # or its thread would go on accepting
        self._listener.close()


@pytest.fixture(params=[b"CURVE", b"NULL", b""], ids=["curve", "null", "tunnel"])
def curt(request: pytest.FixtureRequest) -> Iterator[Curt]:
    server = Curt(request.param)
    yield server
    server.close()


CURT = {
    ("curve", "none"): "wants the campaign's key, and PENSTOCK_KEYS names no key file",
    ("curve", "client"): "is of another campaign, or of an earlier session",
    ("null", "client"): "has no keys, and PENSTOCK_KEYS names",
}


@pytest.mark.parametrize("file", ["none", "client"])
def test_a_server_whose_greeting_is_cut_off_is_asked_for_it_and_a_tunnel_is_waited_for(
    secured: Secured, curt: Curt, file: str, monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    monkeypatch.setattr(handshakes, "UNCERTAIN_S", 0.3)
    keys = ClientKeys.read(secured.keys.client) if file == "client" else None
    words = CURT.get((request.node.callspec.id.split("-")[0], file))
    with (
        Asker(curt.address, "t", resend_s=0.1, keys=keys) as asker,
        pytest.raises(NoAnswer if words is None else penstock.KeyRefused, match=words),
    ):
        asker.ask("hello", timeout_s=2.0 if words is None else 20.0)
    assert curt.ended > 2


C_PROGRAM = r"""
#include <stdio.h>
#include "penstock.h"
int main(void) {
    static float u[8 * 6];
    penstock_link *link;
    penstock_simulation *sim;
    penstock_code code = penstock_connect(&link, NULL, NULL, 0);
    while (!code && !(code = penstock_next(link, &sim))) {
        int k;
        for (k = 0; !code && k < 5; k++) {
            penstock_array step[] = {penstock_f32("u", u, 48)};
            code = penstock_send(sim, 0.1 * k, step, 1);
        }
    }
    if (code == PENSTOCK_OVER) code = penstock_close(link);
    if (code) fprintf(stderr, "%s\n", penstock_error(link));
    penstock_free(link);
    return (int)code;
}
"""


@pytest.fixture(scope="module")
def c_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None or not Path("/usr/include/zmq.h").exists():
        pytest.skip("There is no cc with a zmq.h here.")
    folder = tmp_path_factory.mktemp("c")
    (folder / "solver.c").write_text(C_PROGRAM)
    client = ROOT / "clients" / "c"
    done = subprocess.run(
        [
            "cc", "-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", f"-I{client}",
            "-DPENSTOCK_UNCERTAIN_S=1.0",
            "solver.c", str(client / "penstock.c"), "-lzmq", "-lm", "-o", "solver",
        ],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    return folder / "solver"


def run_c(program: Path, keys: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program)], env={**os.environ, "PENSTOCK_KEYS": keys}, capture_output=True, text=True,
        check=False, timeout=timeout_s,
    )  # fmt: skip


def test_a_c_program_streams_with_the_key(secured: Secured, c_program: Path) -> None:
    simulations = secured.work(2)
    done = run_c(c_program, secured.keys.client)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: secured.coordinator.delivered >= set(simulations), what="the delivery")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("none", "wants the campaign's key, and PENSTOCK_KEYS names no key file"),
        ("strange", "is of another campaign, or of an earlier session"),
        ("forged", "does not accept the key in"),
        ("missing", "cannot be read: No such file"),
    ],
)
def test_a_c_program_that_is_not_let_in_ends_with_the_reason(
    secured: Secured, c_program: Path, file: str, words: str
) -> None:
    path = {
        "none": "", "strange": secured.strange.client, "forged": secured.forged(),
        "missing": str(secured.folder / "missing"),
    }[file]  # fmt: skip
    done = run_c(c_program, path)
    assert done.returncode != 0
    assert words in done.stderr
    assert not [key for key in key_texts(secured.keys, secured.strange) if key in done.stderr]


@pytest.mark.parametrize("file", ["none", "client"])
def test_a_c_program_asks_for_a_greeting_that_was_cut_off(
    secured: Secured, c_program: Path, curt: Curt, file: str, monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    monkeypatch.setenv("PENSTOCK_COORDINATOR", curt.address)
    words = CURT.get((request.node.callspec.id.split("-")[0], file))
    keys = secured.keys.client if file == "client" else ""
    if words is not None:
        assert words in run_c(c_program, keys).stderr
        return
    with pytest.raises(subprocess.TimeoutExpired):  # it may come yet
        run_c(c_program, keys, timeout_s=3.0)
    assert curt.ended > 2


def _place(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return host, int(port)
