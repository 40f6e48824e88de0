"""The parts of tbot's configuration file that tell where the identity is and whom it is for.

Version 1 (Teleport 9 to 13) lists `destinations`; version 2 (from 14) lists `services`, and under
its older name `outputs` (lib/tbot/config/config.go, lib/tbot/config/migrate.go). Everything else in
the file is tbot's own business: unknown keys and kinds are skipped, since newer versions keep
adding some.
"""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from dbproxy.errors import Code, ConfigError
from dbproxy.identity.files import UnusableFileError, read_regular_file
from dbproxy.identity.yaml_document import parse_yaml
from dbproxy.identity.yaml_nodes import YamlValue

__all__ = ["DestinationEntry", "TbotConfig", "load_tbot_config", "parse_tbot_config"]

_MAXIMUM_SIZE: Final = 256 * 1024
"""Bytes: dozens of times what a long configuration has, and parsed within a few seconds."""
_VERSIONS: Final = frozenset({"v1", "v2"})
_DATABASE_KINDS: Final = frozenset({"database", "database-tunnel"})
_DIRECTORY: Final = "directory"


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationEntry:
    """One output of tbot.

    Attributes:
        directory: Where it goes; `None` when that is no directory, as with `memory`,
            `kubernetes_secret` and services that write nothing, and for a version 2 entry of
            another kind than `database`.
        service: The database service; `None` when the output is not for a database.
        username: The database user, if it is fixed here.
        database: The database name, if it is fixed here.
        kind: The `type` of a version 2 entry; of a version 1 entry `database` or `identity`.
        line: The line that it starts on, from 1.
    """

    directory: Path | None
    service: str | None
    username: str | None
    database: str | None
    kind: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TbotConfig:
    """What dbproxy needs to know of a tbot configuration.

    Attributes:
        path: The file.
        proxy_server: The address of the Teleport Proxy, as written.
        auth_server: The address of the Auth Service, as written; version 1 and older guides name
            the Teleport Proxy here as well.
        insecure: Whether tbot was told not to verify the Teleport Proxy's certificate.
        renewal_interval: How often tbot renews, if the file says so.
        entries: The outputs, in the order of the file.
    """

    path: Path
    proxy_server: str | None
    auth_server: str | None
    insecure: bool
    renewal_interval: timedelta | None
    entries: tuple[DestinationEntry, ...]


def load_tbot_config(path: Path) -> TbotConfig:
    """Read a tbot configuration file; blocks on the file system.

    Raises:
        ConfigError: With `Code.CONFIG_UNREADABLE` when the file does not exist, may not be read, is
            not a regular file or is too large; with `Code.CONFIG_MALFORMED` as `parse_tbot_config`.
    """
    try:
        data = read_regular_file(path, _MAXIMUM_SIZE)
    except FileNotFoundError as error:
        raise _unreadable(f"the tbot configuration {path} does not exist") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise _unreadable(f"the tbot configuration {path} cannot be read: {reason}") from error
    except UnusableFileError as error:
        raise _unreadable(f"the tbot configuration {path} {error}") from error
    return parse_tbot_config(data, path)


def parse_tbot_config(data: bytes, source: Path) -> TbotConfig:
    """Understand the content of a tbot configuration file.

    Args:
        data: The content.
        source: Where it came from.

    Raises:
        ConfigError: With `Code.CONFIG_MALFORMED`; the text is `file:line:column: key: what is
        wrong`.
    """
    root = parse_yaml(data, source)
    if root is None:
        raise ConfigError(Code.CONFIG_MALFORMED, f"{source}:1:1: the file is empty")
    _check_version(root)
    renewal_interval = root.get("renewal_interval")
    insecure = root.get("insecure")
    return TbotConfig(
        path=source,
        proxy_server=_optional_text(root, "proxy_server"),
        auth_server=_optional_text(root, "auth_server"),
        insecure=insecure is not None and insecure.boolean(),
        renewal_interval=renewal_interval.duration() if renewal_interval is not None else None,
        entries=_read_entries(root),
    )


def _check_version(root: YamlValue) -> None:
    version = root.get("version")
    if version is not None and version.text() and version.text() not in _VERSIONS:
        raise version.error(f"must be v1 or v2, not {version.text()!r}")


def _read_entries(root: YamlValue) -> tuple[DestinationEntry, ...]:
    first_version = (_read_v1_entry(entry) for entry in _list(root, "destinations"))
    outputs = (_read_v2_entry(entry) for entry in _list(root, "outputs"))
    services = (_read_v2_entry(entry) for entry in _list(root, "services"))
    return (*first_version, *outputs, *services)


def _list(root: YamlValue, key: str) -> tuple[YamlValue, ...]:
    value = root.get(key)
    return value.items() if value is not None else ()


def _read_v1_entry(entry: YamlValue) -> DestinationEntry:
    database = entry.get("database")
    directory = entry.get("directory")
    return DestinationEntry(
        directory=_read_v1_directory(directory) if directory is not None else None,
        service=database.require("service").text() if database is not None else None,
        username=_optional_text(database, "username"),
        database=_optional_text(database, "database"),
        kind="database" if database is not None else "identity",
        line=entry.line,
    )


def _read_v1_directory(value: YamlValue) -> Path:
    """The path, given as such or in a mapping (lib/tbot/config/destination_directory.go)."""
    return _path(value) if value.is_text() else _path(value.require("path"))


def _read_v2_entry(entry: YamlValue) -> DestinationEntry:
    kind = entry.require("type").text()
    is_database = kind in _DATABASE_KINDS
    return DestinationEntry(
        directory=_read_v2_directory(entry) if kind == "database" else None,
        service=entry.require("service").text() if is_database else None,
        username=_optional_text(entry, "username") if is_database else None,
        database=_optional_text(entry, "database") if is_database else None,
        kind=kind,
        line=entry.line,
    )


def _read_v2_directory(entry: YamlValue) -> Path | None:
    destination = entry.require("destination")
    kind = _optional_text(destination, "type") or _DIRECTORY
    return _path(destination.require("path")) if kind == _DIRECTORY else None


def _path(value: YamlValue) -> Path:
    text = value.text()
    if not text:
        raise value.error("must not be empty")
    return Path(text)


def _optional_text(parent: YamlValue | None, key: str) -> str | None:
    """The text of `key`; `None` when it is absent, null or empty."""
    value = parent.get(key) if parent is not None else None
    return (value.text() or None) if value is not None else None


def _unreadable(message: str) -> ConfigError:
    return ConfigError(Code.CONFIG_UNREADABLE, message)
