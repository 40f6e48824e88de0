"""Bots, their join tokens and their certificates: a stand-in for the bot half of Teleport's auth.

`Bots.add` is what `tctl bots add app --roles=…` does, `Bots.join` what tbot does at its first
start, `Bots.certificate_for` what it asks for at every renewal.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cryptography import x509

from dbproxy.lab.authority import Authority
from dbproxy.lab.errors import AccessDenied, JoinError, LabError, RoleError
from dbproxy.lab.keys import PublicKey
from dbproxy.lab.roles import Role
from dbproxy.lab.ssh import NO_LOGIN
from dbproxy.lab.subject import SubjectFields

MAX_TTL = timedelta(hours=24)  # defaults.MaxRenewableCertTTL: longer requests are cut, not refused


@dataclass(frozen=True)
class JoinToken:
    """What `tctl bots add` prints.

    Attributes:
        token: Secret that lets a bot join.
        ca_pin: Pin of the Host CA, `sha256:…`.
        bot_name: Name of the bot.
    """

    token: str = field(repr=False)
    ca_pin: str
    bot_name: str


@dataclass(frozen=True)
class Bot:
    """A bot that has joined.

    Attributes:
        name: Name of the bot.
        roles: Roles that the bot may ask for.
        instance_id: UUID of this joined process.
    """

    name: str
    roles: tuple[str, ...]
    instance_id: str

    @property
    def user(self) -> str:
        """The Teleport user of the bot, `bot-<name>`."""
        return f"bot-{self.name}"


class Bots:
    """The cluster's bots.

    Args:
        authority: Issues the certificates.
        roles: Roles of the cluster by name; the mapping is read at each use, so it may grow. With
            None, role names are not checked and certificates carry no allowed names and users.
    """

    def __init__(self, authority: Authority, roles: Mapping[str, Role] | None = None) -> None:
        self._authority = authority
        self._roles = roles
        self._by_name: dict[str, tuple[str, ...]] = {}
        self._by_token: dict[str, str] = {}

    def add(self, name: str, roles: Sequence[str]) -> JoinToken:
        """Create a bot and a token to join with.

        Unlike Teleport's, the token stays valid, as the lab's tbot keeps no storage from which it
        could renew an earlier identity.

        Raises:
            LabError: The bot exists already, or has no role.
            RoleError: The cluster does not have one of the roles.
        """
        if not name or name in self._by_name:
            raise LabError(f"cannot add bot {name!r}: {'it exists' if name else 'no name'}")
        if not roles:
            raise LabError(f"cannot add bot {name!r}: it needs at least one role")
        for role in roles:
            self._check_role(role)
        self._by_name[name] = tuple(dict.fromkeys(roles))
        token = secrets.token_hex(16)
        self._by_token[token] = name
        return JoinToken(token, self._authority.ca_pin, name)

    def _check_role(self, role: str) -> None:
        if self._roles is not None and role not in self._roles:
            raise RoleError(f"role {role} is not found")

    def join(self, token: str, ca_pins: Sequence[str] = ()) -> Bot:
        """Join with a token, after checking that the cluster has one of the pins.

        Without pins the cluster is trusted at first use, as in Teleport.

        Raises:
            JoinError: No pin matches the Host CA, or the token is unknown.
        """
        trusted = {authority.pin for authority in self._authority.trusted_host_cas}
        if ca_pins and trusted.isdisjoint(ca_pins):
            raise JoinError("no CA pin matches the cluster's Host CA")
        name = self._by_token.get(token)
        if name is None:
            raise JoinError("the join token is not valid")
        return Bot(name, self._by_name[name], str(uuid.uuid4()))

    def certificate_for(
        self,
        bot: Bot,
        public_key: PublicKey,
        *,
        service: str = "",
        protocol: str = "",
        db_user: str = "",
        db_name: str = "",
        roles: Sequence[str] = (),
        ttl: timedelta,
        now: datetime | None = None,
    ) -> x509.Certificate:
        """Issue an impersonated certificate, with a database route when `service` is given.

        Args:
            bot: Who asks.
            public_key: Public key of the new certificate.
            service: Database service of the route; empty for a certificate without route.
            protocol: Database protocol of the service.
            db_user: Database user of the route, may be empty.
            db_name: Database name of the route, may be empty.
            roles: Roles to impersonate; empty means all roles of the bot.
            ttl: Lifetime, cut to 24 hours.
            now: Time of issue, the current time by default.

        Raises:
            AccessDenied: A role is not one of the bot's.
        """
        subject = SubjectFields(
            user=bot.user,
            roles=_requested_roles(bot, roles),
            logins=(NO_LOGIN,),
            cluster_route=self._authority.cluster,
            traits={"logins": ()},
            service=service,
            protocol=protocol,
            db_user=db_user,
            db_name=db_name,
            impersonator=bot.user,
            disallow_reissue=True,
            cluster=self._authority.cluster,
            bot_name=bot.name,
            bot_instance_id=bot.instance_id,
        )
        return self._authority.issue_user_certificate(
            public_key, self._with_allowed(subject), min(ttl, MAX_TTL), now=now
        )

    def _with_allowed(self, subject: SubjectFields) -> SubjectFields:
        # Only a database certificate lists the names and users that its roles allow.
        if not subject.service or self._roles is None:
            return subject
        held = [self._roles[name].allow for name in subject.roles if name in self._roles]
        return replace(
            subject,
            db_names=_unique(name for allow in held for name in allow.db_names),
            db_users=_unique(user for allow in held for user in allow.db_users),
        )


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _requested_roles(bot: Bot, roles: Sequence[str]) -> tuple[str, ...]:
    for role in roles:
        if role not in bot.roles:
            raise AccessDenied(f"bot {bot.name} may not impersonate role {role}")
    return tuple(roles) or bot.roles
