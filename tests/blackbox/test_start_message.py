"""What the command prints when its port is open."""

import json
import socket
from pathlib import Path

import trio
from commands import running_dbproxy

from dbproxy._version import __version__


async def test_the_first_line_names_a_port_that_accepts_connections(
    tmp_path: Path, destination: Path
) -> None:
    arguments = ("db", "--destination-dir", destination, "--proxy=127.0.0.1:1")
    async with running_dbproxy(*arguments, home=tmp_path) as command:
        port = await command.port()
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        await command.out.first("psql")
        assert command.out.received[0] == f"Started DB proxy on 127.0.0.1:{port}"
        assert "--port" in command.out.received[1]
        assert command.out.received[2:6] == [
            "Use following credentials to connect to the example-server proxy:",
            f"  ca_file={destination}/teleport-host-ca.crt",
            f"  cert_file={destination}/tlscert",
            f"  key_file={destination}/key",
        ]
        (paste,) = [line for line in command.out.received if line.startswith("  psql ")]
        for word in (f"port={port}", "user=alice", "dbname=example", "sslmode=verify-full"):
            assert word in paste


async def test_a_port_of_ones_own_is_kept_and_needs_no_hint(
    tmp_path: Path, destination: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    arguments = ("db", "--destination-dir", destination, "--proxy=127.0.0.1:1", "example-server")
    async with running_dbproxy(*arguments, f"--port={port}", home=tmp_path) as command:
        assert await command.started() == f"127.0.0.1:{port}"
        await command.out.first("psql")
        assert "--port" not in "\n".join(command.out.received)


async def test_the_service_may_come_from_the_environment(tmp_path: Path, destination: Path) -> None:
    environment = {
        "DBPROXY_DESTINATION_DIR": str(destination),
        "DBPROXY_PROXY": "127.0.0.1:1",
        "DBPROXY_SERVICE": "example-server",
    }
    async with running_dbproxy("db", home=tmp_path, env=environment) as command:
        await command.out.first("example-server proxy:")


async def test_a_tunnel_prints_no_credentials(tmp_path: Path, destination: Path) -> None:
    arguments = ("db", "--tunnel", "--destination-dir", destination, "--proxy=127.0.0.1:1")
    async with running_dbproxy(*arguments, home=tmp_path) as command:
        paste = await command.out.first("  psql ")
        assert "sslmode=disable" in paste
        assert "_file=" not in "\n".join(command.out.received)


async def test_user_and_database_of_ones_own_go_into_the_command(
    tmp_path: Path, destination: Path
) -> None:
    arguments = ("db", "--destination-dir", destination, "--proxy=127.0.0.1:1", "-u", "bob")
    async with running_dbproxy(*arguments, "-n", "other", home=tmp_path) as command:
        paste = await command.out.first("  psql ")
        assert "user=bob" in paste
        assert "dbname=other" in paste


async def test_terminate_names_the_local_authority(tmp_path: Path, destination: Path) -> None:
    arguments = ("db", "--terminate", "--destination-dir", destination, "--proxy=127.0.0.1:1")
    state = {"STATE_DIRECTORY": str(tmp_path / "state")}
    async with running_dbproxy(*arguments, home=tmp_path, env=state) as command:
        line = await command.out.first("ca_file=")
        ca_file = trio.Path(line.split("=")[1])
        assert Path(ca_file) == tmp_path / "state" / "dbproxy-ca.crt"
        assert (await ca_file.read_text()).startswith("-----BEGIN CERTIFICATE-----")
        assert f"sslrootcert={ca_file}" in await command.out.first("  psql ")


async def test_json_is_one_object_on_one_line(tmp_path: Path, destination: Path) -> None:
    arguments = ("--destination-dir", destination, "--proxy=127.0.0.1:1", "db", "--format=json")
    async with running_dbproxy(*arguments, home=tmp_path) as command:
        facts = json.loads(await command.out.first(""))
        paste = facts.pop("connect_command")
        address = facts.pop("address")
        assert address.startswith("127.0.0.1:")
        assert f"port={address.rpartition(':')[2]}" in paste
        assert facts == {
            "mode": "passthrough",
            "service": "example-server",
            "protocol": "postgres",
            "user": "alice",
            "database": "example",
            "ca_file": f"{destination}/teleport-host-ca.crt",
            "cert_file": f"{destination}/tlscert",
            "key_file": f"{destination}/key",
            "version": __version__,
        }
        assert await command.stop() == 0
    assert len(command.out.received) == 1


async def test_a_configuration_of_tbot_is_enough(tmp_path: Path, destination: Path) -> None:
    config = tmp_path / "tbot.yaml"
    config.write_text(
        "version: v2\nproxy_server: 127.0.0.1:1\noutputs:\n  - type: database\n"
        f"    service: example-server\n    destination: {{type: directory, path: {destination}}}\n"
    )
    async with running_dbproxy("-c", config, "db", "example-server", home=tmp_path) as command:
        await command.out.first(f"cert_file={destination}/tlscert")


async def test_what_lowers_safety_is_said_loudly(tmp_path: Path, destination: Path) -> None:
    arguments = ("db", "--insecure", "--destination-dir", destination, "--proxy=127.0.0.1:1")
    async with running_dbproxy(*arguments, home=tmp_path) as command:
        line = await command.err.first("insecure-choice")
        assert " warning " in line
        assert "option=--insecure" in line
