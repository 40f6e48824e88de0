"""Teleport's identity in a certificate's subject.

Teleport writes who a certificate is for, and what it may reach, into the subject's distinguished
name: partly into standard attributes, partly under private object identifiers, as strings, repeated
for lists. Its sources call these "extensions", but they are not X.509 extensions.

The rules follow `FromSubject` in lib/tlsca/ca.go: of a single-valued private attribute the last one
counts, of STREET the first; unknown attributes are skipped, since newer versions keep adding some.
What dbproxy only tells, and does not act on, is skipped as well when it cannot be understood.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from dbproxy.errors import Code, IdentityError
from dbproxy.identity.distinguished_name import Attributes, read_subject
from dbproxy.identity.route import Route

__all__ = ["Subject", "parse_subject"]

_COMMON_NAME: Final = "2.5.4.3"
_STREET: Final = "2.5.4.9"
_ORGANIZATION: Final = "2.5.4.10"
_ORGANIZATIONAL_UNIT: Final = "2.5.4.11"
_POSTAL_CODE: Final = "2.5.4.17"
_TELEPORT_CLUSTER: Final = "1.3.9999.1.7"
_MFA_DEVICE: Final = "1.3.9999.1.8"
_LOGIN_IP: Final = "1.3.9999.1.9"
_RENEWABLE: Final = "1.3.9999.1.13"
_GENERATION: Final = "1.3.9999.1.14"
_KEY_POLICY: Final = "1.3.9999.1.15"
_USER_TYPE: Final = "1.3.9999.1.20"
_DATABASE_SERVICE: Final = "1.3.9999.2.1"
_DATABASE_PROTOCOL: Final = "1.3.9999.2.2"
_DATABASE_USERNAME: Final = "1.3.9999.2.3"
_DATABASE_NAME: Final = "1.3.9999.2.4"
_ALLOWED_DATABASE_NAMES: Final = "1.3.9999.2.5"
_ALLOWED_DATABASE_USERS: Final = "1.3.9999.2.6"
_IMPERSONATOR: Final = "1.3.9999.2.7"
_ACCESS_REQUESTS: Final = "1.3.9999.2.8"
_DISALLOW_REISSUE: Final = "1.3.9999.2.9"
_ALLOWED_RESOURCES: Final = "1.3.9999.2.10"
_SYSTEM_ROLES: Final = "1.3.9999.2.11"
_PREVIOUS_EXPIRY: Final = "1.3.9999.2.12"
_PINNED_IP: Final = "1.3.9999.2.15"
_BOT_NAME: Final = "1.3.9999.2.18"
_DATABASE_ROLES: Final = "1.3.9999.2.19"
_BOT_INSTANCE_ID: Final = "1.3.9999.2.20"
_DEVICE_ID: Final = "1.3.9999.3.1"
_DEVICE_ASSET_TAG: Final = "1.3.9999.3.2"

_TRUE: Final = "true"
_LONGEST_NUMBER: Final = 20
"""Digits of the largest unsigned 64-bit number."""
_RFC_3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a Teleport certificate says about its holder.

    Attributes:
        user: The Teleport user; of a bot's certificate, the bot's user `bot-<name>`. Empty when the
            certificate has no common name.
        roles: The Teleport roles of the user.
        usage: What the certificate is restricted to (`usage:db`, …); empty means unrestricted.
        traits: The user's traits, each with its values, in the order of the certificate.
        cluster: The cluster that issued the certificate.
        route_to_cluster: The cluster that the certificate is to be used with, if it says so.
        route: The database that the certificate leads to; `None` when it names no service.
        allowed_database_names: The database names that the roles allow.
        allowed_database_users: The database users that the roles allow.
        access_requests: The identifiers of the access requests that are in effect.
        allowed_resources: The resources that the requests are limited to, as Teleport's JSON text.
        impersonator: The user that asked for this certificate on behalf of `user`.
        disallow_reissue: Whether the holder may not ask for further certificates.
        renewable: Whether this is a bot's own certificate, with which it renews itself.
        generation: How often the bot has renewed its own certificate; Teleport's counter, which
            has nothing to do with `Identity.generation`.
        previous_expiry: When the certificate that was used to ask for this one ends.
        login_ip: The address that the holder logged in from.
        pinned_ip: The only address that the certificate may be used from, if there is one.
        user_type: `local` or `sso`, from the versions that say so.
        bot_name: The bot's name, from the versions that say so.
        bot_instance_id: The bot instance's identifier, from the versions that say so.
        system_roles: The roles of a Teleport service; a user has none.
        key_policy: How the private key was attested, such as `none` or `hardware_key`.
        mfa_device: The device that confirmed the login.
        device_id: The trusted device.
        device_asset_tag: The trusted device's inventory number.
    """

    user: str
    roles: tuple[str, ...]
    usage: tuple[str, ...]
    traits: tuple[tuple[str, tuple[str, ...]], ...]
    cluster: str | None
    route_to_cluster: str | None
    route: Route | None
    allowed_database_names: tuple[str, ...]
    allowed_database_users: tuple[str, ...]
    access_requests: tuple[str, ...]
    allowed_resources: str | None
    impersonator: str | None
    disallow_reissue: bool
    renewable: bool
    generation: int | None
    previous_expiry: datetime | None
    login_ip: str | None
    pinned_ip: str | None
    user_type: str | None
    bot_name: str | None
    bot_instance_id: str | None
    system_roles: tuple[str, ...]
    key_policy: str | None
    mfa_device: str | None
    device_id: str | None
    device_asset_tag: str | None


def parse_subject(certificate: x509.Certificate, source: Path | None = None) -> Subject:
    """Read Teleport's identity from the subject of `certificate`.

    Args:
        certificate: Any certificate; without Teleport's attributes the fields are empty.
        source: The file that the certificate was read from, for the error's text.

    Raises:
        IdentityError: With `Code.IDENTITY_MALFORMED` when the subject is not a valid name.
    """
    try:
        values = _Values(read_subject(certificate))
    except ValueError as error:
        where = f" in {source}" if source is not None else ""
        raise IdentityError(
            Code.IDENTITY_MALFORMED,
            f"the subject of the certificate{where} cannot be read: {error}",
        ) from error
    return Subject(
        user=values.last(_COMMON_NAME) or "",
        roles=values.all(_ORGANIZATION),
        usage=values.all(_ORGANIZATIONAL_UNIT),
        traits=_parse_traits(values.last(_POSTAL_CODE)),
        cluster=values.last(_TELEPORT_CLUSTER),
        route_to_cluster=values.first(_STREET),
        route=_parse_route(values),
        allowed_database_names=values.all(_ALLOWED_DATABASE_NAMES),
        allowed_database_users=values.all(_ALLOWED_DATABASE_USERS),
        access_requests=values.all(_ACCESS_REQUESTS),
        allowed_resources=values.last(_ALLOWED_RESOURCES),
        impersonator=values.last(_IMPERSONATOR),
        disallow_reissue=values.last(_DISALLOW_REISSUE) == _TRUE,
        renewable=values.last(_RENEWABLE) == _TRUE,
        generation=_parse_number(values.last(_GENERATION)),
        previous_expiry=_parse_time(values.last(_PREVIOUS_EXPIRY)),
        login_ip=values.last(_LOGIN_IP),
        pinned_ip=values.last(_PINNED_IP),
        user_type=values.last(_USER_TYPE),
        bot_name=values.last(_BOT_NAME),
        bot_instance_id=values.last(_BOT_INSTANCE_ID),
        system_roles=values.all(_SYSTEM_ROLES),
        key_policy=values.last(_KEY_POLICY),
        mfa_device=values.last(_MFA_DEVICE),
        device_id=values.last(_DEVICE_ID),
        device_asset_tag=values.last(_DEVICE_ASSET_TAG),
    )


def _parse_route(values: "_Values") -> Route | None:
    """The database route; a certificate has one exactly when it names a service.

    That rule is Teleport's own: lib/srv/db/dbutils/db.go.
    """
    service = values.last(_DATABASE_SERVICE)
    if service is None:
        return None
    return Route(
        service=service,
        protocol=values.last(_DATABASE_PROTOCOL) or "",
        username=values.last(_DATABASE_USERNAME),
        database=values.last(_DATABASE_NAME),
        roles=values.all(_DATABASE_ROLES),
    )


def _parse_traits(text: str | None) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The traits in a JSON object of lists of texts; none when it is anything else."""
    try:
        traits: object = json.loads(text or "null")
    except (ValueError, RecursionError):
        return ()
    if not isinstance(traits, Mapping):
        return ()
    return tuple((str(name), _texts(values)) for name, values in traits.items())


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list):
        return ()
    return tuple(value for value in values if isinstance(value, str))


def _parse_number(text: str | None) -> int | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > _LONGEST_NUMBER:
        return None
    return int(text)


def _parse_time(text: str | None) -> datetime | None:
    """The moment of an RFC 3339 text, in UTC to the second; Go writes nanoseconds at will."""
    match = _RFC_3339.fullmatch(text or "")
    if match is None:
        return None
    date, time, _, zone = match.groups()
    try:
        return datetime.fromisoformat(f"{date}T{time}{zone}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None


class _Values:
    """The values of a name by object identifier, in the order of the name."""

    def __init__(self, attributes: Attributes) -> None:
        self._values: defaultdict[str, list[str]] = defaultdict(list)
        for oid, value in attributes:
            self._values[oid].append(value)

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
