"""Teleport's identity in a certificate's subject.

Teleport writes who a certificate is for, and what it may reach, into the subject's distinguished
name: partly into standard attributes, partly under private object identifiers, as strings, repeated
for lists. Its sources call these "extensions", but they are not X.509 extensions.

The rules follow `FromSubject` in lib/tlsca/ca.go: of a single-valued private attribute the last one
counts, of STREET the first; unknown attributes are skipped, since newer versions keep adding some.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from dbproxy.errors import Code, IdentityError
from dbproxy.identity.route import Route

__all__ = ["Subject", "parse_subject"]

_TELEPORT_CLUSTER: Final = "1.3.9999.1.7"
_USER_TYPE: Final = "1.3.9999.1.20"
_DATABASE_SERVICE: Final = "1.3.9999.2.1"
_DATABASE_PROTOCOL: Final = "1.3.9999.2.2"
_DATABASE_USERNAME: Final = "1.3.9999.2.3"
_DATABASE_NAME: Final = "1.3.9999.2.4"
_ALLOWED_DATABASE_NAMES: Final = "1.3.9999.2.5"
_ALLOWED_DATABASE_USERS: Final = "1.3.9999.2.6"
_IMPERSONATOR: Final = "1.3.9999.2.7"
_DISALLOW_REISSUE: Final = "1.3.9999.2.9"
_PINNED_IP: Final = "1.3.9999.2.15"
_BOT_NAME: Final = "1.3.9999.2.18"
_DATABASE_ROLES: Final = "1.3.9999.2.19"
_BOT_INSTANCE_ID: Final = "1.3.9999.2.20"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a Teleport certificate says about its holder.

    Attributes:
        user: The Teleport user; of a bot's certificate, the bot's user `bot-<name>`. Empty when the
            certificate has no common name.
        roles: The Teleport roles of the user.
        usage: What the certificate is restricted to (`usage:db`, …); empty means unrestricted.
        cluster: The cluster that issued the certificate.
        route_to_cluster: The cluster that the certificate is to be used with, if it says so.
        route: The database that the certificate leads to; `None` when it names no service.
        allowed_database_names: The database names that the roles allow.
        allowed_database_users: The database users that the roles allow.
        impersonator: The user that asked for this certificate on behalf of `user`.
        disallow_reissue: Whether the holder may not ask for further certificates.
        pinned_ip: The only address that the certificate may be used from, if there is one.
        user_type: `local` or `sso`, from the versions that say so.
        bot_name: The bot's name, from the versions that say so.
        bot_instance_id: The bot instance's identifier, from the versions that say so.
    """

    user: str
    roles: tuple[str, ...]
    usage: tuple[str, ...]
    cluster: str | None
    route_to_cluster: str | None
    route: Route | None
    allowed_database_names: tuple[str, ...]
    allowed_database_users: tuple[str, ...]
    impersonator: str | None
    disallow_reissue: bool
    pinned_ip: str | None
    user_type: str | None
    bot_name: str | None
    bot_instance_id: str | None


def parse_subject(certificate: x509.Certificate, source: Path | None = None) -> Subject:
    """Read Teleport's identity from the subject of `certificate`.

    Args:
        certificate: Any certificate; without Teleport's attributes the fields are empty.
        source: The file that the certificate was read from, for the error's text.

    Raises:
        IdentityError: With `Code.IDENTITY_MALFORMED` when the subject is not a valid name.
    """
    try:
        attributes = _Attributes(certificate.subject)
    except (ValueError, TypeError) as error:  # TypeError: a bit string where text belongs
        where = f" in {source}" if source is not None else ""
        raise IdentityError(
            Code.IDENTITY_MALFORMED,
            f"the subject of the certificate{where} cannot be read: {error}",
        ) from error
    return Subject(
        user=attributes.last(NameOID.COMMON_NAME.dotted_string) or "",
        roles=attributes.all(NameOID.ORGANIZATION_NAME.dotted_string),
        usage=attributes.all(NameOID.ORGANIZATIONAL_UNIT_NAME.dotted_string),
        cluster=attributes.last(_TELEPORT_CLUSTER),
        route_to_cluster=attributes.first(NameOID.STREET_ADDRESS.dotted_string),
        route=_parse_route(attributes),
        allowed_database_names=attributes.all(_ALLOWED_DATABASE_NAMES),
        allowed_database_users=attributes.all(_ALLOWED_DATABASE_USERS),
        impersonator=attributes.last(_IMPERSONATOR),
        disallow_reissue=attributes.last(_DISALLOW_REISSUE) == "true",
        pinned_ip=attributes.last(_PINNED_IP),
        user_type=attributes.last(_USER_TYPE),
        bot_name=attributes.last(_BOT_NAME),
        bot_instance_id=attributes.last(_BOT_INSTANCE_ID),
    )


def _parse_route(attributes: "_Attributes") -> Route | None:
    """The database route; a certificate has one exactly when it names a service.

    That rule is Teleport's own: lib/srv/db/dbutils/db.go.
    """
    service = attributes.last(_DATABASE_SERVICE)
    if service is None:
        return None
    return Route(
        service=service,
        protocol=attributes.last(_DATABASE_PROTOCOL) or "",
        username=attributes.last(_DATABASE_USERNAME),
        database=attributes.last(_DATABASE_NAME),
        roles=attributes.all(_DATABASE_ROLES),
    )


class _Attributes:
    """The string attributes of a name by object identifier, in the order of the name."""

    def __init__(self, name: x509.Name) -> None:
        self._values: defaultdict[str, list[str]] = defaultdict(list)
        for attribute in name:
            if isinstance(attribute.value, str):
                self._values[attribute.oid.dotted_string].append(attribute.value)

    def all(self, oid: str) -> tuple[str, ...]:
        """Every value that is not empty."""
        return tuple(value for value in self._values.get(oid, ()) if value)

    def first(self, oid: str) -> str | None:
        """The first value; `None` when it is absent or empty."""
        values = self._values.get(oid)
        return (values[0] or None) if values else None

    def last(self, oid: str) -> str | None:
        """The last value; `None` when it is absent or empty."""
        values = self._values.get(oid)
        return (values[-1] or None) if values else None
