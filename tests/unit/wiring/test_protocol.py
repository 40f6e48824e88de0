"""What the settings say about the protocol."""

import pytest

from dbproxy.errors import UsageError
from dbproxy.protocols import MySQL, protocol_named
from dbproxy.settings import Settings
from dbproxy.wiring import configured_protocol

POSTGRES = protocol_named("postgres")


def test_mysql_clients_are_told_the_version_that_was_given() -> None:
    protocol = configured_protocol(Settings(mysql_version="8.0.36"), "mysql")
    assert protocol.alpn == MySQL().telling("8.0.36").alpn
    assert len(configured_protocol(Settings(), "mysql").alpn) == 2


def test_a_value_that_the_operator_gave_is_offered_beside_the_version() -> None:
    settings = Settings(alpn="teleport-mysql-db", mysql_version="8.0.36")
    protocol = configured_protocol(settings, "mysql")
    given, version = ("teleport-mysql-db-ping", "teleport-mysql-db"), MySQL().telling("8.0.36").alpn
    assert list(protocol.alpn) == [*given, version[-1]]
    assert len(MySQL().alpn) == 2


def test_a_version_is_of_no_use_for_another_protocol() -> None:
    assert configured_protocol(Settings(mysql_version="8.0.36"), "postgres") is POSTGRES


@pytest.mark.parametrize("mode", ["tunnel", "terminate"])
def test_a_version_is_for_passthrough_only(mode: str) -> None:
    with pytest.raises(UsageError, match="--mysql-version"):
        Settings(mysql_version="8.0.36", tunnel=mode == "tunnel", terminate=mode == "terminate")


def test_a_protocol_that_teleport_does_not_carry_in_this_mode_is_refused() -> None:
    with pytest.raises(UsageError, match="SQL Server"):
        configured_protocol(Settings(), "sqlserver")
    assert configured_protocol(Settings(tunnel=True), "sqlserver").name == "sqlserver"


def test_the_mode_of_the_named_protocol_counts_not_of_the_certificates() -> None:
    assert configured_protocol(Settings(protocol="postgres"), "sqlserver") is POSTGRES
