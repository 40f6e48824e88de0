"""What a proxy that has started tells about itself."""

from dataclasses import replace
from pathlib import Path

from dbproxy.proxy import Started
from dbproxy.settings import Mode

PASSTHROUGH = Started(
    address="127.0.0.1:12345",
    mode=Mode.PASSTHROUGH,
    service="example-server",
    protocol="postgres",
    database_user="alice",
    database_name="example",
    ca_file=Path("/opt/machine-id/teleport-host-ca.crt"),
    certificate_file=Path("/opt/machine-id/tlscert"),
    key_file=Path("/opt/machine-id/key"),
    connect_command="psql 'host=localhost port=12345'",
)
TUNNEL = replace(PASSTHROUGH, mode=Mode.TUNNEL, ca_file=None, certificate_file=None, key_file=None)
