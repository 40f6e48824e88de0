"""Which client `dbproxy connect` starts; that it starts is seen in `tests/blackbox`."""

from pathlib import Path

import pytest

from dbproxy.cli.connect import _installed
from dbproxy.errors import Code, DBProxyError, UsageError
from dbproxy.protocols import ClientCommand


def program(directory: Path, name: str) -> str:
    path = directory / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o700)
    return str(path)


def test_the_usual_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    client = ClientCommand(("mysql", "--host=localhost"), also_called=("mariadb",))
    other = program(tmp_path, "mariadb")
    assert _installed(client) == other
    usual = program(tmp_path, "mysql")
    assert _installed(client) == usual


def test_a_client_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DBProxyError, match=f"no mysql nor mariadb in PATH \\({tmp_path}\\)") as got:
        _installed(ClientCommand(("mysql",), also_called=("mariadb",)))
    assert got.value.code is Code.COMMAND_NOT_FOUND


def test_where_there_is_nothing_to_talk_with_it_says_what_to_use_instead() -> None:
    with pytest.raises(UsageError, match="use a wallet") as caught:
        _installed(ClientCommand(("sqlplus",), instead="use a wallet"))
    assert "dbproxy run" in (caught.value.next_step or "")
