"""`dbproxy lab`: a stand-in for a Teleport cluster, in the foreground."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
import trio

from dbproxy.lab import DatabaseResource, guide
from dbproxy.lab.address import parse_tcp_address
from dbproxy.lab.durations import parse_duration
from dbproxy.lab.errors import LabError
from dbproxy.lab.foreground import Plan, run_in_foreground
from dbproxy.lab.occupancy import occupy
from dbproxy.lab.roles import Role

__all__ = ["lab"]

HELP: Final = """\
Run a miniature Teleport cluster on this machine, until Ctrl-C.

It stands in for Teleport's Auth, Proxy and Database Service: it has certificate authorities,
roles, one bot, a tbot that keeps certificates in a directory fresh, and a Proxy that gives their
holders access to real databases. It is meant for trying things out and for continuous
integration, not for production: it reaches the databases without TLS and without a password.

\b
Example:
  dbproxy lab --database=127.0.0.1:5432 --db-user=alice --db-name=example
"""


def _checked(
    check: Callable[[str], object],
) -> Callable[[click.Context, click.Parameter, str], str]:
    """Makes a click callback that lets the text pass if ``check`` does."""

    def callback(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
        try:
            check(value)
        except (LabError, ValueError) as error:
            raise click.BadParameter(str(error)) from error
        return value

    return callback


def _positive_duration(text: str) -> None:
    if parse_duration(text).total_seconds() <= 0:
        raise ValueError(f"{text!r} is not longer than zero")


def _read_roles(
    _context: click.Context, _parameter: click.Parameter, paths: tuple[Path, ...]
) -> list[str]:
    return [_read_role(path) for path in paths]


def _read_role(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
        Role.from_yaml(text)
    except OSError as error:
        raise click.ClickException(_sentence(error)) from error
    except (UnicodeDecodeError, LabError) as error:
        raise click.ClickException(f"{path}: {error}") from error
    return text


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"cannot use {error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot write or read: {error.strerror}"
    return str(error)


@click.command(help=HELP, short_help="Run a miniature Teleport cluster.")
@click.option(
    "--database",
    "databases",
    metavar="[NAME=]ADDRESS",
    multiple=True,
    help="A real database, HOST:PORT or unix:///PATH; may be repeated with different names. "
    "[required]",
)
@click.option(
    "--service",
    default=guide.SERVICE,
    show_default=True,
    metavar="NAME",
    help="Name of a database that is given without one.",
)
@click.option(
    "--protocol",
    default="postgres",
    show_default=True,
    metavar="NAME",
    help="The databases' protocol, as Teleport names it.",
)
@click.option(
    "--db-user",
    "db_users",
    multiple=True,
    default=(guide.DATABASE_USER,),
    show_default=True,
    metavar="NAME",
    help="Database user; may be repeated, the first one goes into the certificates.",
)
@click.option(
    "--db-name",
    "db_names",
    multiple=True,
    default=(guide.DATABASE,),
    show_default=True,
    metavar="NAME",
    help="Database name; may be repeated, the first one goes into the certificates.",
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Path(path_type=Path),
    callback=_read_roles,
    metavar="FILE",
    help="Role as `tctl create -f` takes it; may be repeated. "
    "[default: the guide's, with the users and names above]",
)
@click.option(
    "--bot", default=guide.BOT, show_default=True, metavar="NAME", help="The bot; has all roles."
)
@click.option(
    "--listen",
    default="127.0.0.1:0",
    show_default=True,
    metavar="HOST:PORT",
    callback=_checked(parse_tcp_address),
    help="Where the Proxy listens; port 0 takes a free one.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="State: CA files and audit log. [default: a temporary directory]",
)
@click.option(
    "--destination",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where certificates are written. [default: `machine-id` in the state directory]",
)
@click.option(
    "--certificate-ttl",
    default="1h",
    show_default=True,
    metavar="DURATION",
    callback=_checked(_positive_duration),
    help="Lifetime of certificates.",
)
@click.option(
    "--renewal-interval",
    default="20m",
    show_default=True,
    metavar="DURATION",
    callback=_checked(_positive_duration),
    help="Time between renewals.",
)
@click.option(
    "--split-database-ca",
    is_flag=True,
    help="Make the Database CA an authority of its own, as in newer clusters.",
)
@click.option(
    "--ping-interval",
    default="30s",
    show_default=True,
    metavar="DURATION",
    callback=_checked(_positive_duration),
    help="Time between the Proxy's pings.",
)
@click.option(
    "--no-ping",
    is_flag=True,
    help="Let the Proxy not know ping framing, as Teleport before 10.",
)
@click.option(
    "--balancer",
    is_flag=True,
    help="Put an L7 load balancer before the Proxy, so that clients need a connection upgrade.",
)
def lab(
    *,
    databases: tuple[str, ...],
    service: str,
    protocol: str,
    db_users: tuple[str, ...],
    db_names: tuple[str, ...],
    roles: list[str],
    bot: str,
    listen: str,
    directory: Path | None,
    destination: Path | None,
    certificate_ttl: str,
    renewal_interval: str,
    split_database_ca: bool,
    ping_interval: str,
    no_ping: bool,
    balancer: bool,
) -> None:
    """Runs the cluster that the options describe."""
    resources = _resources(databases, service, protocol)
    with _state_directory(directory) as state:
        plan = Plan(
            resources=resources,
            db_users=db_users,
            db_names=db_names,
            roles=roles or [guide.role_yaml(db_names=db_names, db_users=db_users)],
            bot=bot,
            listen=listen,
            directory=state,
            destination=(destination or state / "machine-id").absolute(),
            certificate_ttl=certificate_ttl,
            renewal_interval=renewal_interval,
            split_database_ca=split_database_ca,
            ping=not no_ping,
            ping_interval=parse_duration(ping_interval).total_seconds(),
            balancer=balancer,
        )
        with _sentences(), occupy([state, *map(plan.destination_of, resources)]):
            trio.run(run_in_foreground, plan, click.echo)


def _resources(databases: tuple[str, ...], service: str, protocol: str) -> list[DatabaseResource]:
    """Reads ``[NAME=]ADDRESS``; a Unix socket's path may contain ``=``."""
    if not databases:
        raise click.UsageError("--database: give the address of a real database")
    resources: dict[str, DatabaseResource] = {}
    for text in databases:
        name, separator, address = text.partition("=")
        if not separator or "/" in name:
            name, address = service, text
        if name in resources:
            raise click.UsageError(f"--database: two databases named {name}: give NAME=ADDRESS")
        try:
            resources[name] = DatabaseResource(name, address, protocol)
        except LabError as error:
            raise click.UsageError(f"--database: {error}") from error
    return list(resources.values())


@contextmanager
def _state_directory(directory: Path | None) -> Iterator[Path]:
    if directory is not None:
        yield directory.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="dbproxy-lab-") as temporary:
        yield Path(temporary)


@contextmanager
def _sentences() -> Iterator[None]:
    """Turns what the lab cannot do, and what the system refuses, into click's one sentence."""
    problems: list[str] = []
    try:
        yield
    except* BrokenPipeError:  # nobody reads what the lab says
        raise
    except* LabError as group:
        problems += map(_sentence, _leaves(group))
    except* OSError as group:
        problems += map(_sentence, _leaves(group))
    if problems:
        raise click.ClickException(problems[0])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
