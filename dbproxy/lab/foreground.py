"""Run a whole cluster in the foreground and say what it does: the body of ``dbproxy lab``."""

from __future__ import annotations

import shlex
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import trio

from dbproxy.lab import guide
from dbproxy.lab.address import open_address, parse_tcp_address, reason_of
from dbproxy.lab.audit import Event
from dbproxy.lab.balancer import open_balancer
from dbproxy.lab.cluster import AUDIT_FILE, Lab, open_lab
from dbproxy.lab.database import DatabaseResource

STOPPING: Final = (signal.SIGINT, signal.SIGTERM)
DATABASE_PATIENCE: Final = 3.0
"""Seconds that a database has to answer at the start; a local one takes none."""
LOCAL_PORT: Final = 12345
"""The local port of the suggested command."""

Echo = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run.

    Attributes:
        resources: the databases.
        db_users: database users, the certificates' own first.
        db_names: database names, the certificates' own first.
        roles: role documents; the bot has them all.
        bot: the bot's name.
        listen: ``HOST:PORT`` of the Proxy.
        directory: where the cluster keeps its files.
        destination: where certificates are written; one directory below it for each database when
            there are several.
        certificate_ttl: lifetime of certificates, in Go's notation.
        renewal_interval: time between renewals, in Go's notation.
        split_database_ca: whether the Database CA is an authority of its own.
        ping: whether the Proxy knows ping framing.
        ping_interval: seconds between the Proxy's pings.
        balancer: whether an L7 balancer stands before the Proxy.
    """

    resources: Sequence[DatabaseResource]
    db_users: Sequence[str]
    db_names: Sequence[str]
    roles: Sequence[str]
    bot: str
    listen: str
    directory: Path
    destination: Path
    certificate_ttl: str
    renewal_interval: str
    split_database_ca: bool
    ping: bool
    ping_interval: float
    balancer: bool

    def destination_of(self, resource: DatabaseResource) -> Path:
        """The directory with the certificate for one database."""
        return self.destination if len(self.resources) == 1 else self.destination / resource.name


async def run_in_foreground(plan: Plan, echo: Echo) -> None:
    """Runs the cluster until SIGINT or SIGTERM.

    Args:
        plan: what to run.
        echo: called with each line for the user.

    Raises:
        LabError: something in the plan is malformed or impossible; may come in a group.
        OSError: a file cannot be written; may come in a group.
    """
    with trio.open_signal_receiver(*STOPPING) as signals:
        async with (
            open_lab(
                databases=plan.resources,
                directory=plan.directory,
                listen=plan.listen,
                split_database_ca=plan.split_database_ca,
                ping=plan.ping,
                ping_interval=plan.ping_interval,
                on_audit_event=lambda event: echo(describe_event(event)),
            ) as lab,
            _open_front(plan, lab) as address,
            trio.open_nursery() as nursery,
        ):
            await _start_bot(plan, lab, nursery)
            for line in describe(plan, lab, address):
                echo(line)
            for resource in plan.resources:
                nursery.start_soon(_try_database, resource, echo)
            await anext(signals)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _open_front(plan: Plan, lab: Lab) -> AsyncIterator[str]:
    """Opens what stands before the Proxy; its value is the address that clients use."""
    if not plan.balancer:
        yield lab.address
        return
    async with open_balancer(lab) as balancer:
        lab.web = replace(lab.web, public_addr=balancer.address)
        yield balancer.address


async def _start_bot(plan: Plan, lab: Lab, nursery: trio.Nursery) -> None:
    """Creates roles and bot, and has the first certificates written."""
    for text in plan.roles:
        lab.create_role(text)
    token = lab.add_bot(plan.bot, roles=list(lab.roles))
    for resource in plan.resources:
        config = guide.tbot_yaml(
            token,
            proxy=lab.address,
            destination=plan.destination_of(resource),
            roles=list(lab.roles),
            service=resource.name,
            db_name=plan.db_names[0],
            db_user=plan.db_users[0],
            certificate_ttl=plan.certificate_ttl,
            renewal_interval=plan.renewal_interval,
        )
        await nursery.start(lab.tbot(config).run)


async def _try_database(resource: DatabaseResource, echo: Echo) -> None:
    """Says so when a database does not answer: better now than with the first session."""
    reason = f"no answer within {DATABASE_PATIENCE:.0f} s"
    with trio.move_on_after(DATABASE_PATIENCE):
        try:
            stream = await open_address(resource.address)
        except OSError as error:
            reason = reason_of(error)
        else:
            await stream.aclose()
            return
    echo(
        f"warning: the database {resource.name} at {resource.address} cannot be reached ({reason});"
        " sessions fail until it can"
    )


def describe(plan: Plan, lab: Lab, address: str) -> list[str]:
    """Returns what was started, and the commands to try.

    Args:
        plan: what was to run.
        lab: what runs.
        address: where clients connect to.
    """
    return [
        f"Lab cluster {lab.cluster} is running; its Proxy listens on {lab.address}",
        *([f"  balancer   {address}, which clients use"] if plan.balancer else []),
        *(f"  database   {r.name} ({r.protocol}) at {r.address}" for r in plan.resources),
        f"  roles      {', '.join(lab.roles)}",
        f"  bot        {plan.bot}, renews its certificates every {plan.renewal_interval}",
        f"  files      {plan.destination}",
        f"  web CA     {lab.web_ca_file}",
        f"  audit log  {plan.directory / AUDIT_FILE}",
        "Try:",
        *(f"  {line}" for line in _commands(plan, lab, plan.resources[0], address)),
        "Ctrl-C ends the cluster.",
    ]


def describe_event(event: Event) -> str:
    """Returns one line about an event of the audit log."""
    who = f"{event['db_user']}@{event['db_name']} on {event['db_service']} ({event['user']})"
    if not event["success"]:
        return f"denied: {who}: {event['error']}"
    if event["event"] == "db.session.start":
        return f"session started: {who}"
    sizes = f"{event['bytes_from_client']} bytes in, {event['bytes_to_client']} bytes out"
    return f"session ended: {who}: {sizes}"


def _commands(plan: Plan, lab: Lab, resource: DatabaseResource, address: str) -> list[str]:
    destination = plan.destination_of(resource)
    proxy = f"localhost:{parse_tcp_address(address).port}"
    dbproxy = [
        "dbproxy",
        f"--destination-dir={destination}",
        f"--proxy={proxy}",
        f"--proxy-ca={lab.web_ca_file}",
    ]
    parameters = (
        f"host=localhost port={LOCAL_PORT} user={plan.db_users[0]} dbname={plan.db_names[0]} "
        f"sslmode=verify-full sslrootcert={destination}/teleport-host-ca.crt "
        f"sslcert={destination}/tlscert sslkey={destination}/key"
    )
    commands = [shlex.join([*dbproxy, "db", f"--port={LOCAL_PORT}", resource.name])]
    if resource.protocol == "postgres":
        commands.append(shlex.join(["psql", parameters]))
    else:  # dbproxy knows its client, and the lab shares no code with it
        commands.append(shlex.join([*dbproxy, "connect", resource.name]))
    return commands
