"""Choosing the destination to use."""

import os
from collections.abc import Iterable
from pathlib import Path

from dbproxy.errors import Code, ConfigError, UsageError
from dbproxy.identity.tbot_config import DestinationEntry, TbotConfig

__all__ = ["locate"]


def locate(
    *,
    destination_dir: Path | None,
    config: TbotConfig | None,
    service: str | None,
    username: str | None = None,
    database: str | None = None,
) -> Path:
    """Choose the directory to read the identity from.

    A directory given by name wins. Otherwise the output in tbot's configuration is taken that is
    for the service wanted; several that go to the same directory count as one. Only several
    outputs of one service are told apart by `username` and `database`: what a certificate may be
    used for is for the cluster to decide.

    Args:
        destination_dir: The directory, when it was named.
        config: The tbot configuration, when there is one.
        service: The database service wanted; `None` accepts any, provided that there is only one.
        username: The database user, to choose between outputs of one service.
        database: The database name, likewise.

    Raises:
        UsageError: Neither a directory nor a configuration is known.
        ConfigError: With `Code.DESTINATION_NOT_FOUND` when no output fits, or more than one; the
            text lists the candidates.
    """
    if destination_dir is not None:
        return destination_dir
    if config is None:
        raise UsageError(
            "where the certificates are is not known",
            next_step="Give the directory that tbot writes to with --destination-dir, or tbot's"
            " configuration file with --config.",
        )
    candidates = [entry for entry in config.entries if entry.service is not None]
    fitting = [entry for entry in candidates if service in (None, entry.service)]
    directories = _directories(fitting)
    if len(directories) > 1:
        fitting = [entry for entry in fitting if _fits(entry, username, database)] or fitting
        directories = _directories(fitting)
    if len(directories) == 1:
        return directories.pop()
    wanted = _describe_wanted(service)
    if directories:
        raise _not_found(config, f"more than one {wanted}", fitting)
    if fitting:
        raise _not_found(config, f"no {wanted} goes to a directory", fitting)
    raise _not_found(config, f"no {wanted}", candidates)


def _directories(entries: Iterable[DestinationEntry]) -> set[Path]:
    return {_normalised(entry.directory) for entry in entries if entry.directory is not None}


def _fits(entry: DestinationEntry, username: str | None, database: str | None) -> bool:
    return username in (None, entry.username) and database in (None, entry.database)


def _normalised(directory: Path) -> Path:
    """The same directory for each way to write it; symbolic links are left as they are."""
    return Path(os.path.normpath(directory))


def _describe_wanted(service: str | None) -> str:
    return "database output" + (f" for the service {service!r}" if service is not None else "")


def _not_found(
    config: TbotConfig, problem: str, candidates: Iterable[DestinationEntry]
) -> ConfigError:
    listing = "; ".join(_describe(entry) for entry in candidates) or "none at all"
    return ConfigError(Code.DESTINATION_NOT_FOUND, f"{config.path}: {problem}; it has {listing}")


def _describe(entry: DestinationEntry) -> str:
    limits = [
        f"{name} {value!r}"
        for name, value in (("user", entry.username), ("database", entry.database))
        if value is not None
    ]
    target = f"directory {entry.directory}" if entry.directory is not None else "no directory"
    parts = (f"{entry.kind} for the service {entry.service!r}", *limits, target)
    return f"line {entry.line}: {', '.join(parts)}"
