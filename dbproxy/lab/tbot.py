"""A stand-in for tbot: joins the lab and keeps destinations fresh."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from dbproxy.lab.authority import Authority, CertificateAuthority
from dbproxy.lab.bots import Bot, Bots
from dbproxy.lab.destination_files import Layout, Material, destination_files
from dbproxy.lab.destination_writer import BeforeWrite, write_destination
from dbproxy.lab.errors import JoinError
from dbproxy.lab.keys import PrivateKey, new_rsa_key, private_key_pem
from dbproxy.lab.ssh import public_key_line
from dbproxy.lab.tbot_config import Output, TbotConfig, load_tbot_config

__all__ = ["ClusterServices", "Layout", "Tbot", "TbotConfig", "load_tbot_config"]


class ClusterServices(Protocol):
    """What the writer needs of a cluster. The real tbot reaches it over the network."""

    @property
    def authority(self) -> Authority:
        """The cluster's certificate authorities."""

    @property
    def bots(self) -> Bots:
        """The cluster's bots."""

    def protocol_of(self, service: str) -> str:
        """Return the database protocol of a service.

        Raises:
            LabError: There is no such service.
        """


class Tbot:
    """Joins the cluster, then writes and renews every output of a tbot.yaml.

    Every renewal makes a new RSA-2048 key for each output and writes all files in place, in the
    order of the chosen layout.

    Args:
        config: What to write.
        cluster: Where certificates come from.
        layout: Which generation of tbot to imitate: file set and order.
        gap: Seconds to sleep between two files of a destination.
        before_write: Called with the path before each file is opened; for tests that look at a
            destination in the middle of a renewal.
        generate_key: Makes the key of each renewal, called in a worker thread.

    Attributes:
        generation: Number of completed renewals of all outputs.
    """

    def __init__(
        self,
        config: TbotConfig,
        cluster: ClusterServices,
        *,
        layout: Layout = "v14",
        gap: float = 0.0,
        before_write: BeforeWrite | None = None,
        generate_key: Callable[[], PrivateKey] = new_rsa_key,
    ) -> None:
        self.config = config
        self.generation = 0
        self._cluster = cluster
        self._layout = layout
        self._gap = gap
        self._before_write = before_write
        self._generate_key = generate_key
        self._bot: Bot | None = None
        self._lock = trio.Lock()
        self._renewed = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Join, write all outputs, report started, then renew forever.

        A rotation of the cluster's authorities makes it renew before its time, in the phases in
        which tbot does (lib/tbot/ca_rotation.go).

        Returns after the first renewal when the configuration says `oneshot`. A renewal that fails
        ends the task, as in tbot v9. Cancelling leaves every single file whole, see
        `write_destination`.

        Raises:
            JoinError: The cluster refused the bot.
            AccessDenied: An output asks for a role that the bot does not have.
            LabError: An output names a service that the cluster does not have.
            OSError: A destination cannot be written.
        """
        self.join()
        forced = self._cluster.authority.forced_renewals
        await self.renew()
        task_status.started()
        while not self.config.oneshot:
            with trio.move_on_after(self.config.shortest_interval.total_seconds()):
                await self._cluster.authority.wait_forced_renewal(forced)
            forced = self._cluster.authority.forced_renewals
            await self.renew()

    def join(self) -> Bot:
        """Join the cluster with the token and the pins of the configuration.

        Raises:
            JoinError: Wrong token, no matching pin, unreadable token file or another join method.
        """
        if self.config.join_method != "token":
            raise JoinError(f"the lab has no join method {self.config.join_method}, only token")
        self._bot = self._cluster.bots.join(_token(self.config.token), self.config.ca_pins)
        return self._bot

    async def renew(self) -> None:
        """Renew every output once, joining first when that has not happened yet.

        Renewals never overlap: a second call waits for the first. Raises as `run` does.
        Cancelling in the middle does not count a generation.
        """
        async with self._lock:
            for output in self.config.outputs:
                await self._renew_output(output)
            self.generation += 1
            self._renewed.set()
            self._renewed = trio.Event()

    async def wait_renewed(self, after: int) -> None:
        """Wait until `generation` is greater than `after`. Can be cancelled at any time."""
        while self.generation <= after:
            await self._renewed.wait()

    async def _renew_output(self, output: Output) -> None:
        # Key generation cannot be interrupted: a cancelled task waits for the thread to end.
        key = await trio.to_thread.run_sync(self._generate_key)
        certificate = self._certificate(output, key)
        files = destination_files(output, self._material(output, key, certificate), self._layout)
        await write_destination(
            output.directory, files, gap=self._gap, before_write=self._before_write
        )

    def _certificate(self, output: Output, key: PrivateKey) -> x509.Certificate:
        service = output.service
        return self._cluster.bots.certificate_for(
            self._joined_bot(),
            key.public_key(),
            service=service,
            protocol=self._cluster.protocol_of(service) if service else "",
            db_user=output.db_user,
            db_name=output.db_name,
            roles=output.roles,
            ttl=output.certificate_ttl or self.config.certificate_ttl,
        )

    def _joined_bot(self) -> Bot:
        return self._bot or self.join()

    def _material(self, output: Output, key: PrivateKey, certificate: x509.Certificate) -> Material:
        authority = self._cluster.authority
        return Material(
            key=private_key_pem(key),
            public_key=public_key_line(key.public_key()),
            certificate=certificate.public_bytes(Encoding.PEM),
            ssh_certificate=self._ssh_certificate(output, key, certificate),
            host_cas=_pems(authority.trusted_host_cas),
            user_cas=_pems(authority.trusted_user_cas),
            database_cas=_pems(authority.trusted_database_cas),
            ssh_cas=(
                authority.ssh_host_ca.public_key_line,
                authority.ssh_user_ca.public_key_line,
            ),
            known_hosts=(authority.ssh_host_ca.known_hosts_line,),
        )

    def _ssh_certificate(
        self, output: Output, key: PrivateKey, certificate: x509.Certificate
    ) -> bytes:
        bot = self._joined_bot()
        return self._cluster.authority.ssh_user_ca.issue_user_certificate(
            key.public_key(),
            user=bot.user,
            logins=(),
            roles=output.roles or bot.roles,
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
        )


def _pems(authorities: tuple[CertificateAuthority, ...]) -> tuple[bytes, ...]:
    return tuple(authority.pem for authority in authorities)


def _token(value: str) -> str:
    # As in tbot, an absolute path stands for the file that holds the token.
    if not value.startswith("/"):
        return value
    try:
        return Path(value).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise JoinError(f"cannot read the join token from {value}: {error}") from error
