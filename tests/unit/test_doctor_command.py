"""The program `penstock` of an installation with and without the server."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace

import pytest

from penstock import command


def test_without_the_server_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError("No module named 'typer'", name="typer")

    monkeypatch.setattr(importlib, "import_module", absent)
    assert command.main() == 2
    told = capsys.readouterr().err
    assert "the package typer of the server is not installed here" in told
    assert 'pip install ".[server]"' in told


def test_an_old_python_is_told_which_one_the_server_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    assert command.main() == 2
    assert "needs Python 3.11 or newer, and this is Python 3.9.18" in capsys.readouterr().err


def test_a_broken_installation_is_not_taken_for_a_missing_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(name: str) -> None:
        raise ModuleNotFoundError("No module named", name="penstock_server.config")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError):
        command.main()


def test_with_the_server_its_exit_code_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda _: SimpleNamespace(main=lambda: 3))
    assert command.main() == 3
