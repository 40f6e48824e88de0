"""What the settings say about the protocol."""

import pytest

from dbproxy.errors import UsageError
from dbproxy.protocols import MySQL, SQLServer, protocol_named
from dbproxy.settings import Settings
from dbproxy.wiring import configured_protocol

POSTGRES = protocol_named("postgres")


def test_mysql_clients_are_told_the_version_that_was_given() -> None:
    protocol = configured_protocol(MySQL(), Settings(mysql_version="8.0.36"))
    assert protocol.alpn == MySQL("8.0.36").alpn
    assert len(configured_protocol(MySQL(), Settings()).alpn) == 2


def test_a_version_is_of_no_use_for_another_protocol() -> None:
    assert configured_protocol(POSTGRES, Settings(mysql_version="8.0.36")) is POSTGRES


@pytest.mark.parametrize("mode", ["tunnel", "terminate"])
def test_a_version_is_for_passthrough_only(mode: str) -> None:
    with pytest.raises(UsageError, match="--mysql-version"):
        Settings(mysql_version="8.0.36", tunnel=mode == "tunnel", terminate=mode == "terminate")


def test_sql_server_has_no_passthrough() -> None:
    with pytest.raises(UsageError, match="SQL Server") as caught:
        configured_protocol(SQLServer(), Settings())
    assert caught.value.next_step is not None
    assert "--terminate" in caught.value.next_step
    assert "--tunnel" in caught.value.next_step


@pytest.mark.parametrize("settings", [Settings(tunnel=True), Settings(terminate=True)])
def test_sql_server_has_the_other_modes(settings: Settings) -> None:
    protocol = SQLServer()
    assert configured_protocol(protocol, settings) is protocol
