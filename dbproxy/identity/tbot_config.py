"""The parts of tbot's configuration file that tell where the identity is and whom it is for.

Version 1 (Teleport 9 to 13) lists `destinations`; version 2 (from 14) lists `services`, and under
its older name `outputs` (lib/tbot/config/config.go, lib/tbot/config/migrate.go). Everything else in
the file is tbot's own business: unknown keys and kinds are passed over, since newer versions keep
adding some. A key that is read here and makes no sense is an error that says where it stands.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dbproxy.errors import Code, ConfigError
from dbproxy.identity.files import UnusableFileError, read_regular_file
from dbproxy.identity.tbot_entries import (
    DestinationEntry,
    Lifetime,
    read_lifetime,
    read_v1_entry,
    read_v2_entry,
)
from dbproxy.identity.tbot_words import UnknownWord, unknown_words
from dbproxy.identity.yaml_document import parse_yaml
from dbproxy.identity.yaml_nodes import NOT_TBOTS, YamlValue

__all__ = ["TbotConfig", "load_tbot_config", "parse_tbot_config"]

_MAXIMUM_SIZE: Final = 256 * 1024
"""Bytes: dozens of times what a long configuration has, and parsed within a few seconds."""
_VERSIONS: Final = frozenset({"v1", "v2"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TbotConfig:
    """What dbproxy needs to know of a tbot configuration.

    Attributes:
        path: The file.
        proxy_server: The address of the Teleport Proxy, as written.
        auth_server: The address of the Auth Service, as written; version 1 and older guides name
            the Teleport Proxy here as well.
        insecure: Whether tbot was told not to verify the Teleport Proxy's certificate.
        ca_path: The certificates that tbot was told to trust when it joins (`onboarding.ca_path`).
        lifetime: How long certificates last and how often tbot renews them, if the file says so.
        entries: The outputs and services, in the order of the file.
        proxy_place: Where the address of the Teleport Proxy stands, as messages begin:
            `FILE:LINE:COLUMN: KEY`; `None` without one.
        unknown_words: Keys and types that mean nothing to us: the reason, perhaps, when something
            is not found.
    """

    path: Path
    proxy_server: str | None
    auth_server: str | None
    insecure: bool
    ca_path: Path | None
    lifetime: Lifetime
    entries: tuple[DestinationEntry, ...]
    proxy_place: str | None = field(default=None, compare=False)
    unknown_words: tuple[UnknownWord, ...] = field(default=(), compare=False)


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
        raise ConfigError(
            Code.CONFIG_MALFORMED, f"{source}:1:1: the file is empty", next_step=NOT_TBOTS
        )
    _check_version(root)
    insecure = root.get("insecure")
    lifetime = read_lifetime(root)
    return TbotConfig(
        path=source,
        proxy_server=root.optional_text("proxy_server"),
        auth_server=root.optional_text("auth_server"),
        insecure=insecure is not None and insecure.boolean(),
        ca_path=_read_ca_path(root),
        lifetime=lifetime,
        entries=tuple(_read_entries(root, lifetime)),
        proxy_place=_proxy_place(root),
        unknown_words=unknown_words(root),
    )


def _proxy_place(root: YamlValue) -> str | None:
    for key in ("proxy_server", "auth_server"):
        if root.optional_text(key) and (value := root.get(key)) is not None:
            return value.place
    return None


def _check_version(root: YamlValue) -> None:
    version = root.get("version")
    if version is not None and version.text() and version.text() not in _VERSIONS:
        raise version.error(f"must be v1 or v2, not {version.text()!r}")


def _read_ca_path(root: YamlValue) -> Path | None:
    onboarding = root.get("onboarding")
    path = onboarding.optional_text("ca_path") if onboarding is not None else None
    return Path(path) if path is not None else None


def _read_entries(root: YamlValue, lifetime: Lifetime) -> Iterator[DestinationEntry]:
    for entry in _list(root, "destinations"):
        yield read_v1_entry(entry, lifetime)
    for key in ("outputs", "services"):
        for entry in _list(root, key):
            yield read_v2_entry(entry, lifetime)


def _list(root: YamlValue, key: str) -> tuple[YamlValue, ...]:
    value = root.get(key)
    return value.items() if value is not None else ()


def _unreadable(message: str) -> ConfigError:
    return ConfigError(Code.CONFIG_UNREADABLE, message)
