"""A session's keys: files for their owner alone, read or refused in words that hold no key."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from campaigns import small
from zmq.utils import z85

from penstock.errors import KeyFileError
from penstock.keys import VARIABLE, ClientKeys
from penstock_server.addresses import security
from penstock_server.config import CampaignError
from penstock_server.curve import DOMAIN, KeyFiles, answer, make_keys


@pytest.fixture
def files(tmp_path: Path) -> KeyFiles:
    before = os.umask(0)  # nobody's habits may widen the permissions
    try:
        return make_keys(tmp_path / "keys")
    finally:
        os.umask(before)


def keys_in(path: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+) = (\S{40})$", Path(path).read_text(), re.MULTILINE))


def test_key_files_are_for_their_owner_alone(files: KeyFiles) -> None:
    modes = {Path(p).stat().st_mode & 0o777 for p in (files.server, files.client)}
    assert modes == {0o600}
    assert Path(files.server).parent.stat().st_mode & 0o777 == 0o700


def test_each_side_has_its_own_secret_and_not_the_others(files: KeyFiles) -> None:
    server, client = keys_in(files.server), keys_in(files.client)
    assert set(server) == {"server_public", "server_secret", "client_public"}
    assert set(client) == {"client_public", "client_secret", "server_public"}
    assert {*server.values()} & {*client.values()} == {
        client["server_public"],
        client["client_public"],
    }


def test_each_session_has_new_keys(files: KeyFiles, tmp_path: Path) -> None:
    again = make_keys(tmp_path / "again")
    assert not {*keys_in(files.client).values()} & {*keys_in(again.client).values()}


def test_a_client_reads_what_the_supervisor_wrote(
    files: KeyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, files.client)
    keys = ClientKeys.from_environment()
    assert keys is not None
    written = keys_in(files.client)
    assert keys.client_secret == written["client_secret"].encode()
    assert keys.server_public == written["server_public"].encode()
    assert not any(key in repr(keys) + str(keys) for key in written.values())


def test_without_the_variable_there_are_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert ClientKeys.from_environment() is None
    monkeypatch.setenv(VARIABLE, "")
    assert ClientKeys.from_environment() is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620])
def test_a_key_file_that_others_can_use_is_refused(files: KeyFiles, mode: int) -> None:
    Path(files.client).chmod(mode)
    with pytest.raises(KeyFileError, match=rf"permissions {mode:04o}.*chmod 600"):
        ClientKeys.read(files.client)


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"nobody cannot be read: No such file.*new keys"):
        ClientKeys.read(tmp_path / "nobody")


@pytest.mark.parametrize("change", ["without", "shorter", "longer"])
def test_a_key_file_that_is_not_whole_is_refused_without_naming_a_key(
    files: KeyFiles, change: str
) -> None:
    path, keys = Path(files.client), keys_in(files.client)
    secret = keys["client_secret"]
    changed = {"without": "", "shorter": secret[:-1], "longer": secret + "x"}[change]
    path.write_text(path.read_text().replace(secret, changed))
    with pytest.raises(KeyFileError, match="no line `client_secret = KEY`") as refusal:
        ClientKeys.read(path)
    assert secret[:8] not in str(refusal.value)


def test_the_servers_file_is_of_no_use_to_a_client(files: KeyFiles) -> None:
    with pytest.raises(KeyFileError, match="client_secret"):
        ClientKeys.read(files.server)


def test_only_the_campaigns_own_key_is_let_in() -> None:
    mine, other = b"m" * 32, b"o" * 32

    def status(*request: bytes) -> bytes:
        return answer([b"1.0", b"7", *request], mine)[2]

    assert status(DOMAIN, b"::1", b"", b"CURVE", mine) == b"200"
    assert status(DOMAIN, b"::1", b"", b"CURVE", other) == b"400"
    assert status(b"else", b"::1", b"", b"CURVE", mine) == b"400"
    assert status(DOMAIN, b"::1", b"", b"NULL") == b"400"
    assert status(DOMAIN, b"::1", b"", b"PLAIN", mine, mine) == b"400"
    refusal = answer([b"1.0", b"7", DOMAIN, b"::1", b"", b"CURVE", other], mine)
    assert refusal[:2] == [b"1.0", b"7"]
    assert not any(key in b"".join(refusal) for key in (mine, other, z85.encode(other)))


@pytest.mark.parametrize(
    ("mode", "addresses", "expected"),
    [
        ("auto", ["tcp://127.0.0.1:20000", "ipc:///tmp/x", "tcp://[::1]:20001"], "loopback"),
        ("auto", ["tcp://127.0.0.1:20000", "tcp://10.0.0.7:20001"], "curve"),
        ("auto", ["tcp://0.0.0.0:20000"], "curve"),
        ("auto", ["tcp://*:20000"], "curve"),
        ("curve", ["tcp://127.0.0.1:20000"], "curve"),
        ("trusted-network", ["tcp://10.0.0.7:20000"], "trusted-network"),
    ],
)
def test_keys_are_used_where_others_can_reach_a_socket(
    mode: str, addresses: list[str], expected: str
) -> None:
    assert security(mode, addresses) == expected  # type: ignore[arg-type]


def test_a_campaign_says_who_may_connect_and_the_modes_are_named() -> None:
    assert small().security.mode == "auto"
    assert small("security.mode=trusted-network").security.mode == "trusted-network"
    with pytest.raises(CampaignError, match="one of auto, curve, trusted-network"):
        small("security.mode=none")
