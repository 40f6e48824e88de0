"""The outputs and services of a tbot configuration that have to do with databases.

Version 1 lists `destinations`, in which the keys that are there tell the kind of certificate
(tool/tbot/config/config_destination.go); version 2 lists `services`, and under its older name
`outputs`, in which `type` tells it (lib/tbot/config/config.go, lib/tbot/services/database).
"""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from dbproxy.identity.layout import DEFAULT_NAMES, FileNames, Format
from dbproxy.identity.tbot_templates import read_templates
from dbproxy.identity.yaml_nodes import YamlValue

__all__ = [
    "DestinationEntry",
    "Lifetime",
    "TunnelService",
    "read_lifetime",
    "read_v1_entry",
    "read_v2_entry",
]

_DATABASE: Final = "database"
_TUNNEL: Final = "database-tunnel"
_IDENTITY: Final = "identity"
_DIRECTORY: Final = "directory"
_FORMATS: Final = frozenset(Format)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """How long certificates last, and how often they are renewed; `None` where nothing is said."""

    certificate_ttl: timedelta | None = None
    renewal_interval: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelService:
    """What a version 2 entry of type `database-tunnel` says of its listener.

    Attributes:
        name: The `name`, if it has one.
        listen: The URI to listen on, as written.
        place: Where that stands, as messages begin: `FILE:LINE:COLUMN: services[0].listen`.
    """

    name: str | None
    listen: str
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationEntry:
    """One output or service of tbot.

    Attributes:
        directory: Where it goes; `None` when that is no directory, as with `memory`,
            `kubernetes_secret` and services that write nothing, and for a version 2 entry of
            another kind than `database` and `identity`.
        service: The database service; `None` when the output is not for a database.
        username: The database user, if it is fixed here.
        database: The database name, if it is fixed here.
        kind: The `type` of a version 2 entry; of a version 1 entry `database` or `identity`.
        line: The line that it starts on, from 1.
        formats: What it writes beside the default files; unknown ones are left out.
        names: The names of its files.
        lifetime: Its own times, and where it has none those of the whole file.
        tunnel: The listener, when it is of kind `database-tunnel`.
    """

    directory: Path | None
    service: str | None
    username: str | None
    database: str | None
    kind: str
    line: int
    formats: tuple[Format, ...] = ()
    names: FileNames = DEFAULT_NAMES
    lifetime: Lifetime = Lifetime()
    tunnel: TunnelService | None = None


def read_v1_entry(entry: YamlValue, lifetime: Lifetime) -> DestinationEntry:
    """Understand one of `destinations`.

    Raises:
        ConfigError: A key is missing or malformed.
    """
    database = entry.get("database")
    directory = entry.get("directory")
    configs = entry.get("configs")
    formats, names = read_templates(configs.items() if configs is not None else ())
    return DestinationEntry(
        directory=_read_v1_directory(directory) if directory is not None else None,
        service=database.require("service").text() if database is not None else None,
        username=database.optional_text("username") if database is not None else None,
        database=database.optional_text("database") if database is not None else None,
        kind=_DATABASE if database is not None else _IDENTITY,
        line=entry.line,
        formats=formats,
        names=names,
        lifetime=lifetime,
    )


def read_v2_entry(entry: YamlValue, lifetime: Lifetime) -> DestinationEntry:
    """Understand one of `outputs` or `services`; of kinds that do not matter here only the kind.

    Raises:
        ConfigError: A key is missing or malformed.
    """
    kind = entry.require("type").text()
    is_database = kind in {_DATABASE, _TUNNEL}
    return DestinationEntry(
        directory=_read_v2_directory(entry) if kind in {_DATABASE, _IDENTITY} else None,
        service=entry.require("service").text() if is_database else None,
        username=entry.optional_text("username") if is_database else None,
        database=entry.optional_text("database") if is_database else None,
        kind=kind,
        line=entry.line,
        formats=_read_format(entry) if kind == _DATABASE else (),
        lifetime=_read_own_lifetime(entry, lifetime) if is_database else lifetime,
        tunnel=_read_tunnel(entry) if kind == _TUNNEL else None,
    )


def read_lifetime(section: YamlValue) -> Lifetime:
    """The times that a section of the file gives, under any of their names.

    `credential_ttl` was `certificate_ttl` until version 16 or so (lib/tbot/config/config.go), and
    `renewal_interval` was `renew_interval` before the first release.

    Raises:
        ConfigError: One is not a duration, or is negative.
    """
    return Lifetime(
        certificate_ttl=_span(section, "credential_ttl") or _span(section, "certificate_ttl"),
        renewal_interval=_span(section, "renewal_interval") or _span(section, "renew_interval"),
    )


def _read_own_lifetime(entry: YamlValue, general: Lifetime) -> Lifetime:
    own = read_lifetime(entry)
    return Lifetime(
        certificate_ttl=own.certificate_ttl or general.certificate_ttl,
        renewal_interval=own.renewal_interval or general.renewal_interval,
    )


def _span(section: YamlValue, key: str) -> timedelta | None:
    """A duration; as in tbot, zero is as good as none."""
    value = section.get(key)
    if value is None:
        return None
    span = value.duration()
    if span < timedelta():
        raise value.error("must not be negative")
    return span or None


def _read_v1_directory(value: YamlValue) -> Path:
    """The path, given as such or in a mapping (tool/tbot/config/destination_directory.go)."""
    return _path(value) if value.is_text() else _path(value.require("path"))


def _read_v2_directory(entry: YamlValue) -> Path | None:
    destination = entry.require("destination")
    kind = destination.optional_text("type") or _DIRECTORY
    return _path(destination.require("path")) if kind == _DIRECTORY else None


def _read_format(entry: YamlValue) -> tuple[Format, ...]:
    """The format; the first builds of version 14 called it `subtype`."""
    name = entry.optional_text("format") or entry.optional_text("subtype")
    return (Format(name),) if name in _FORMATS else ()


def _read_tunnel(entry: YamlValue) -> TunnelService:
    listen = entry.require("listen")
    return TunnelService(name=entry.optional_text("name"), listen=listen.text(), place=listen.place)


def _path(value: YamlValue) -> Path:
    text = value.text()
    if not text:
        raise value.error("must not be empty")
    return Path(text)
