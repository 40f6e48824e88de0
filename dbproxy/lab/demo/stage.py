"""The first half of the guide: a database, a cluster, a role, a bot, and its certificates."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import trio
from cryptography import x509

from dbproxy.lab import guide
from dbproxy.lab.cluster import Lab, open_lab
from dbproxy.lab.database import DatabaseResource
from dbproxy.lab.demo import script
from dbproxy.lab.demo.narrator import Narrator
from dbproxy.lab.demo.workshop import Workshop
from dbproxy.lab.errors import LabError
from dbproxy.lab.postgres import EmbeddedPostgres, open_embedded_postgres
from dbproxy.lab.tbot import Tbot

__all__ = ["STEP_PATIENCE", "Stage", "expect", "open_stage"]

STEP_PATIENCE: Final = 30.0
"""Seconds for what a step waits for; each takes one or two on an idle machine."""


@dataclass(frozen=True)
class Stage:
    """Everything but dbproxy, running.

    Attributes:
        workshop: Where it lies.
        postgres: The database.
        lab: The cluster.
        tbot: What renews the certificates.
    """

    workshop: Workshop
    postgres: EmbeddedPostgres
    lab: Lab
    tbot: Tbot

    @property
    def proxy(self) -> str:
        """The address of the cluster's Proxy, by name."""
        return proxy_of(self.lab)


def expect(holds: bool, otherwise: str) -> None:
    """Fail the step unless what it claims is true.

    Raises:
        LabError: It is not.
    """
    if not holds:
        raise LabError(otherwise)


@asynccontextmanager
async def open_stage(workshop: Workshop, say: Narrator) -> AsyncIterator[Stage]:
    """Set everything up, step by step, and keep it running while the block runs.

    Raises:
        StepFailed: A step did not do what it claims; may come inside an exception group.
    """
    async with AsyncExitStack() as stack:
        with say.step("A database"), trio.fail_after(STEP_PATIENCE):
            postgres = await stack.enter_async_context(open_embedded_postgres(workshop.postgres))
            await _fill(postgres, say)
        with say.step("A Teleport cluster, or rather its stand-in on loopback"):
            lab = await stack.enter_async_context(_cluster(workshop, postgres))
            say.done(f"{lab.cluster} offers {guide.SERVICE}; its Proxy is {proxy_of(lab)}")
        with say.step("A role and a bot"):
            _grant(workshop, lab, say)
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        with say.step("Certificates"), trio.fail_after(STEP_PATIENCE):
            say.like(f"tbot start -c {workshop.tbot_yaml}")
            tbot = lab.tbot(workshop.tbot_yaml)
            await nursery.start(tbot.run)
            _check_certificates(workshop, say)
        yield Stage(workshop, postgres, lab, tbot)


async def _fill(postgres: EmbeddedPostgres, say: Narrator) -> None:
    await postgres.execute(script.SETUP)
    await postgres.execute(script.SCHEMA, guide.DATABASE)
    version = (await postgres.execute("SHOW server_version")).strip()
    rows = (await postgres.execute("SELECT count(*) FROM planets", guide.DATABASE)).strip()
    expect(rows == str(len(script.PLANETS)), f"the table holds {rows} rows")
    say.done(f"PostgreSQL {version} at {postgres.address}")
    say.done(
        f"database {guide.DATABASE} with {rows} rows that the user {guide.DATABASE_USER} may read"
    )


def _cluster(workshop: Workshop, postgres: EmbeddedPostgres) -> AbstractAsyncContextManager[Lab]:
    resource = DatabaseResource(
        name=guide.SERVICE, address=postgres.address, labels={"env": "demo"}
    )
    return open_lab(databases=[resource], directory=workshop.cluster)


def proxy_of(lab: Lab) -> str:
    """The Proxy's address with a name instead of the loopback address."""
    return f"localhost:{lab.address.rpartition(':')[2]}"


def _grant(workshop: Workshop, lab: Lab, say: Narrator) -> None:
    say.like(f"tctl create -f {guide.ROLE_NAME}.yaml")
    lab.create_role(guide.role_yaml())
    say.done(
        f"role {guide.ROLE_NAME}: any database server, {guide.DATABASE} as {guide.DATABASE_USER}"
    )
    say.like(f"tctl bots add {guide.BOT} --roles={guide.ROLE_NAME}")
    invitation = lab.add_bot(guide.BOT, [guide.ROLE_NAME])
    say.done(f"bot {guide.BOT}: a join token, and the CA pin {invitation.ca_pin[:19]}…")
    text = guide.tbot_yaml(
        invitation,
        proxy=proxy_of(lab),
        destination=workshop.destination,
        certificate_ttl=f"{script.LIFETIME.seconds}s",
        renewal_interval=f"{script.RENEWAL.seconds}s",
    )
    workshop.tbot_yaml.write_text(text, encoding="utf-8")
    workshop.tbot_yaml.chmod(0o600)


def _check_certificates(workshop: Workshop, say: Narrator) -> None:
    certificate = x509.load_pem_x509_certificate((workshop.destination / "tlscert").read_bytes())
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    expect(timedelta(0) < left <= script.LIFETIME, f"the certificate is valid for {left}")
    names = sorted(path.name for path in workshop.destination.iterdir() if path.stat().st_size)
    say.done(f"{workshop.destination}: {', '.join(names)}")
    say.done(
        f"tlscert is valid for {script.LIFETIME.seconds} seconds; tbot renews it every"
        f" {script.RENEWAL.seconds}"
    )
