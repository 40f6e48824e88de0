"""What the demo learns from the start message of `dbproxy db`."""

from collections.abc import Sequence

import pytest
import trio

from dbproxy.lab.demo.port import Port
from dbproxy.lab.errors import LabError

PSQL = "psql 'host=localhost port=12345 user=alice'"
SAID = (
    "Started DB proxy on 127.0.0.1:12345",
    "Use following credentials to connect to the example-server proxy:",
    "ca_file=/dest/teleport-host-ca.crt",
    "cert_file=/dest/tlscert",
    "key_file=/dest/a=b/key",
    "Connect with:",
    PSQL,
)


async def port(mode: str, said: Sequence[str] = SAID) -> Port:
    process = await trio.lowlevel.open_process(["true"])
    await process.wait()
    return Port(mode, tuple(said), process)


async def test_a_tls_client_uses_the_files_that_were_named() -> None:
    assert (await port("terminate")).parameters == {
        "host": "localhost",
        "port": "12345",
        "sslmode": "verify-full",
        "sslrootcert": "/dest/teleport-host-ca.crt",
        "sslcert": "/dest/tlscert",
        "sslkey": "/dest/a=b/key",
    }


async def test_a_tunnel_client_uses_no_tls_and_no_files() -> None:
    tunnel = await port("tunnel", [SAID[0], PSQL])
    assert tunnel.parameters == {"host": "localhost", "port": "12345", "sslmode": "disable"}
    assert tunnel.psql == PSQL


async def test_a_missing_file_is_named() -> None:
    incomplete = await port("passthrough", [SAID[0], PSQL])
    with pytest.raises(LabError, match="ca_file"):
        _ = incomplete.parameters
