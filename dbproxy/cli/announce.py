"""The start message: where the port is and how to connect."""

import json
from collections.abc import Iterator

import click

from dbproxy._version import __version__
from dbproxy.cli.output import discard_output
from dbproxy.proxy import Started
from dbproxy.settings import Mode, Settings

__all__ = ["announce", "announce_tunnel", "start_message", "tunnel_message"]


def announce(started: Started, settings: Settings) -> None:
    """Write the start message to standard output, at once.

    That its reader has gone away is no reason to end: the port is there for the clients.

    Raises:
        click.ClickException: It cannot be written.
    """
    _write(start_message(started, settings))


def announce_tunnel(name: str, started: Started, settings: Settings) -> None:
    """Write the line that says that a tunnel is open; otherwise as `announce`."""
    _write(tunnel_message(name, started, settings))


def start_message(started: Started, settings: Settings) -> str:
    """The start message in the format asked for, without its last line end."""
    if settings.format == "json":
        return json.dumps(_facts(started))
    return "\n".join(_sentences(started, settings))


def tunnel_message(name: str, started: Started, settings: Settings) -> str:
    """One line for one of many tunnels, in the format asked for, without its end."""
    if settings.format == "json":
        return json.dumps({"tunnel": name} | _facts(started))
    return f"Started tunnel {name} on {started.address}"


def _facts(started: Started) -> dict[str, str | None]:
    files = (started.ca_file, started.certificate_file, started.key_file)
    ca_file, certificate_file, key_file = (str(file) if file else None for file in files)
    return {
        "address": started.address,
        "mode": started.mode.value,
        "service": started.service,
        "protocol": started.protocol,
        "user": started.database_user,
        "database": started.database_name,
        "ca_file": ca_file,
        "cert_file": certificate_file,
        "key_file": key_file,
        "connect_command": started.connect_command,
        "version": __version__,
    }


def _sentences(started: Started, settings: Settings) -> Iterator[str]:
    """The lines that users of `tsh proxy db` know, in their order."""
    yield f"Started DB proxy on {started.address}"
    if settings.port == 0 and settings.listen is None:
        yield "The port is a free one; choose it yourself with the --port flag."
    if started.mode is not Mode.TUNNEL:
        yield f"Use following credentials to connect to the {started.service} proxy:"
        if started.ca_file is not None:
            yield f"  ca_file={started.ca_file}"
        yield f"  cert_file={started.certificate_file}"
        yield f"  key_file={started.key_file}"
    yield "Connect with:"
    yield f"  {started.connect_command}"


def _write(message: str) -> None:
    try:
        click.echo(message)
    except BrokenPipeError:
        discard_output()
    except OSError as error:
        raise click.ClickException(
            f"cannot write the start message to standard output: {error.strerror}"
        ) from error
