"""What the settings say about the protocol."""

import pytest

from dbproxy.errors import UsageError
from dbproxy.protocols import MySQL, protocol_named
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
