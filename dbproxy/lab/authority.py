"""The lab's authorities together: a stand-in for the certificate half of Teleport's auth service.

Host, User and Database CAs belong to the cluster. A further authority, the web CA, stands for
whoever issued the public certificate of the Teleport Proxy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime, timedelta

import trio
from cryptography import x509
from cryptography.x509.oid import NameOID

from dbproxy.lab.certificate_authority import (
    CLIENT_AND_SERVER,
    CLOCK_SKEW,
    SERVER_ONLY,
    CertificateAuthority,
    current_time,
)
from dbproxy.lab.errors import LabError
from dbproxy.lab.keys import KeyPair, PublicKey
from dbproxy.lab.rotation import FORCES_RENEWAL, NEXT_PHASES, Phase
from dbproxy.lab.ssh import SshAuthority
from dbproxy.lab.subject import SubjectFields, encode_subject

__all__ = ["Authority", "CertificateAuthority", "KeyPair"]

_SWAPS = frozenset(  # the steps at which the other authority begins to issue
    {
        (Phase.INIT, Phase.UPDATE_CLIENTS),
        (Phase.UPDATE_CLIENTS, Phase.ROLLBACK),
        (Phase.UPDATE_SERVERS, Phase.ROLLBACK),
    }
)
MAX_ISSUE_TIMES = 10_000
"""How many certificates' times of issue are remembered; certificates have whole seconds only."""
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")  # always in a Proxy's host certificate


class Authority:
    """The cluster's authorities, and what they issue.

    Attributes:
        cluster: Name of the cluster.
        host_ca: Issues the Proxy's own certificates.
        user_ca: Issues user and bot certificates.
        database_ca: The very same authority as `host_ca`, as in clusters that predate their split,
            or one of its own.
        web_ca: Stands for the public authority of the Proxy's web certificate.
        ssh_user_ca: Issues the SSH certificates of bots.
        ssh_host_ca: What bots are told to trust as SSH host authority.
        trusted_host_cas: Every trusted Host CA, the issuing one first; several during a rotation.
        trusted_user_cas: Every trusted User CA, the issuing one first.
        trusted_database_cas: Every trusted Database CA, the issuing one first.
        phase: Where a rotation of all of them stands.
        forced_renewals: How many times a rotation has made clients renew at once.
    """

    def __init__(self, cluster: str, *, split_database_ca: bool = False, rsa: bool = False) -> None:
        self.cluster = cluster
        self._split = split_database_ca
        self._rsa = rsa
        self.web_ca = CertificateAuthority.create("Lab Web CA")
        self.ssh_user_ca = SshAuthority.create(cluster)
        self.ssh_host_ca = SshAuthority.create(cluster)
        self.trusted_host_cas: tuple[CertificateAuthority, ...] = ()
        self.trusted_user_cas: tuple[CertificateAuthority, ...] = ()
        self.trusted_database_cas: tuple[CertificateAuthority, ...] = ()
        self.phase = Phase.STANDBY
        self.forced_renewals = 0
        self._renewal_forced = trio.Event()
        self._issue_times: OrderedDict[int, datetime] = OrderedDict()
        self._add_authorities()

    @classmethod
    def create(
        cls,
        cluster: str = "lab.example.com",
        *,
        split_database_ca: bool = False,
        rsa: bool = False,
    ) -> Authority:
        """Make the authorities of a new cluster."""
        return cls(cluster, split_database_ca=split_database_ca, rsa=rsa)

    @property
    def host_ca(self) -> CertificateAuthority:
        """The issuing Host CA."""
        return self.trusted_host_cas[0]

    @property
    def user_ca(self) -> CertificateAuthority:
        """The issuing User CA."""
        return self.trusted_user_cas[0]

    @property
    def database_ca(self) -> CertificateAuthority:
        """The issuing Database CA."""
        return self.trusted_database_cas[0]

    @property
    def ca_pin(self) -> str:
        """The pin of the Host CA, which `tctl bots add` prints and tbot checks when it joins."""
        return self.host_ca.pin

    @property
    def serving_host_ca(self) -> CertificateAuthority:
        """The Host CA whose certificates servers show: the old one until `update_servers`."""
        behind = self.phase is Phase.UPDATE_CLIENTS
        return self.trusted_host_cas[1 if behind else 0]

    def enter(self, phase: Phase) -> None:
        """Go to another phase of a rotation of the Host, User and Database CAs together.

        Raises:
            LabError: The present phase does not lead there.
        """
        if phase not in NEXT_PHASES[self.phase]:
            raise LabError(f"a rotation in phase {self.phase} cannot go to {phase}")
        came_from, self.phase = self.phase, phase
        if phase is Phase.INIT:
            self._add_authorities()
        elif phase is Phase.STANDBY:
            self._forget_authorities()
        elif (came_from, phase) in _SWAPS:
            self._swap_authorities()
        if phase in FORCES_RENEWAL:
            self.forced_renewals += 1
            self._renewal_forced.set()
            self._renewal_forced = trio.Event()

    async def wait_forced_renewal(self, after: int) -> None:
        """Wait until `forced_renewals` is greater than `after`. Can be cancelled at any time."""
        while self.forced_renewals <= after:
            await self._renewal_forced.wait()

    def begin_rotation(self) -> None:
        """Go from `standby` to `update_clients`."""
        self.enter(Phase.INIT)
        self.enter(Phase.UPDATE_CLIENTS)

    def end_rotation(self) -> None:
        """Go from `update_clients` to `standby`: trust only the newest authorities."""
        self.enter(Phase.UPDATE_SERVERS)
        self.enter(Phase.STANDBY)

    def _add_authorities(self) -> None:
        """Make new authorities, trusted behind those that issue."""
        host, user = self._new_ca(), self._new_ca()
        database = self._new_ca() if self._split else host
        self.trusted_host_cas = (*self.trusted_host_cas, host)
        self.trusted_user_cas = (*self.trusted_user_cas, user)
        self.trusted_database_cas = (*self.trusted_database_cas, database)

    def _swap_authorities(self) -> None:
        """Let the other one of two issue."""
        self.trusted_host_cas = self.trusted_host_cas[::-1]
        self.trusted_user_cas = self.trusted_user_cas[::-1]
        self.trusted_database_cas = self.trusted_database_cas[::-1]

    def _forget_authorities(self) -> None:
        """Trust only the authorities that issue."""
        self.trusted_host_cas = self.trusted_host_cas[:1]
        self.trusted_user_cas = self.trusted_user_cas[:1]
        self.trusted_database_cas = self.trusted_database_cas[:1]

    def _new_ca(self) -> CertificateAuthority:
        return CertificateAuthority.create(self.cluster, rsa=self._rsa)

    def issue_proxy_host_certificate(self, names: Iterable[str] = ()) -> KeyPair:
        """Issue the host identity of a Teleport Proxy: loopback names and `names`.

        It comes from the Host CA whose turn it is for servers.
        """
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Proxy"),
                x509.NameAttribute(NameOID.COMMON_NAME, f"proxy.{self.cluster}"),
            ]
        )
        return self.serving_host_ca.issue_pair(
            subject, (*LOOPBACK_NAMES, *names), CLIENT_AND_SERVER
        )

    def issue_web_certificate(self, names: Iterable[str] = ()) -> KeyPair:
        """Issue the Proxy's public certificate: web CA, loopback names and `names`."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.cluster)])
        return self.web_ca.issue_pair(subject, (*LOOPBACK_NAMES, *names), SERVER_ONLY)

    def issue_user_certificate(
        self,
        public_key: PublicKey,
        subject: SubjectFields,
        ttl: timedelta,
        *,
        now: datetime | None = None,
        authority: CertificateAuthority | None = None,
        not_before: datetime | None = None,
    ) -> x509.Certificate:
        """Issue a user certificate as Teleport's lib/tlsca does.

        Args:
            public_key: The holder's public key.
            subject: Identity to encode.
            ttl: Lifetime from `now` on; X.509 cuts fractions of a second.
            now: Time of issue, the current time by default; another one makes certificates that
                have expired or are not yet valid.
            authority: Issuer, the User CA by default.
            not_before: Start of validity, one minute before `now` by default.

        Raises:
            LabError: The subject cannot be encoded.
            ValueError: The certificate would end before it starts.
        """
        issued = now or current_time()
        certificate = (authority or self.user_ca).issue(
            encode_subject(subject),
            public_key,
            not_before=not_before or issued - CLOCK_SKEW,
            not_after=issued + ttl,
        )
        self._issue_times[certificate.serial_number] = issued
        if len(self._issue_times) > MAX_ISSUE_TIMES:
            self._issue_times.popitem(last=False)
        return certificate

    def issue_time(self, certificate: x509.Certificate) -> datetime:
        """Return when a user certificate was issued, exactly if that is not long ago."""
        recorded = self._issue_times.get(certificate.serial_number)
        return recorded or certificate.not_valid_before_utc + CLOCK_SKEW
