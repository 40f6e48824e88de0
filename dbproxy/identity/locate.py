"""Choosing the destination to use."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dbproxy.errors import Code, ConfigError, UsageError
from dbproxy.identity.layout import DEFAULT_NAMES, FileNames, Format
from dbproxy.identity.tbot_config import TbotConfig
from dbproxy.identity.tbot_entries import DestinationEntry, Lifetime
from dbproxy.identity.tbot_words import in_one_sentence

__all__ = ["Location", "lifetime_in", "locate"]


@dataclass(frozen=True, slots=True)
class Location:
    """The destination to use, and what tbot's configuration says about it.

    Attributes:
        directory: The destination.
        entry: The output that tbot writes there; `None` when no configuration tells.
    """

    directory: Path
    entry: DestinationEntry | None = None

    @property
    def formats(self) -> tuple[Format, ...]:
        """What tbot writes there besides the default files, as far as known."""
        return self.entry.formats if self.entry is not None else ()

    @property
    def names(self) -> FileNames:
        """The names of the files there."""
        return self.entry.names if self.entry is not None else DEFAULT_NAMES

    @property
    def lifetime(self) -> Lifetime:
        """How long the certificates last and how often they are renewed, as far as known."""
        return self.entry.lifetime if self.entry is not None else Lifetime()


def locate(
    *,
    destination_dir: Path | None,
    config: TbotConfig | None,
    service: str | None,
    username: str | None = None,
    database: str | None = None,
) -> Location:
    """Choose the directory to read the identity from.

    A directory given by name wins; what the configuration says about that directory still holds,
    however its path is written there. Otherwise the output in tbot's configuration is taken that is
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
        return _describe_named(destination_dir, config, service)
    if config is None:
        raise UsageError(
            "where the certificates are is not known",
            next_step="Give the directory that tbot writes to with --destination-dir, or tbot's"
            " configuration file with --config.",
        )
    return _search(config, service, username, database)


def lifetime_in(directory: Path, config: TbotConfig | None, service: str | None) -> Lifetime:
    """How long certificates last and how often they are renewed, as far as the configuration tells.

    Args:
        directory: Where a certificate is: a destination, or a directory in one.
        config: The tbot configuration, when there is one.
        service: The database service, to choose between outputs that go there.

    Returns:
        What holds for the output that goes to the directory; without any, what holds in general.
    """
    if config is None:
        return Lifetime()
    for candidate in (directory, directory.parent):  # `cockroach/node.crt`
        entry = _describe_named(candidate, config, service).entry
        if entry is not None:
            return entry.lifetime
    return config.lifetime


def _describe_named(directory: Path, config: TbotConfig | None, service: str | None) -> Location:
    """A directory given by name, with the output that goes there, one for the service if any."""
    entries = _by_directory(config.entries if config is not None else ())
    there = entries.get(_normalised(directory), [])
    fitting = [entry for entry in there if entry.service == service]
    return Location(directory, next(iter(fitting or there), None))


def _search(
    config: TbotConfig, service: str | None, username: str | None, database: str | None
) -> Location:
    candidates = [entry for entry in config.entries if entry.service is not None]
    fitting = [entry for entry in candidates if service in (None, entry.service)]
    found = _by_directory(fitting)
    if len(found) > 1:
        fitting = [entry for entry in fitting if _fits(entry, username, database)] or fitting
        found = _by_directory(fitting)
    if len(found) == 1:
        directory, entries = found.popitem()
        return Location(directory, entries[0])
    wanted = _describe_wanted(service)
    if found:
        raise _not_found(config, f"more than one {wanted}", fitting, _how_to_choose(service))
    if any(entry.tunnel is None for entry in fitting):
        raise _not_found(config, f"no {wanted} goes to a directory", fitting)
    raise _not_found(config, f"no {wanted}", candidates, _how_to_correct(config, candidates))


def _by_directory(entries: Iterable[DestinationEntry]) -> dict[Path, list[DestinationEntry]]:
    """The entries that go to a directory, by that, in the order of the file."""
    found: dict[Path, list[DestinationEntry]] = {}
    for entry in entries:
        if entry.directory is not None:
            found.setdefault(_normalised(entry.directory), []).append(entry)
    return found


def _fits(entry: DestinationEntry, username: str | None, database: str | None) -> bool:
    return username in (None, entry.username) and database in (None, entry.database)


def _normalised(directory: Path) -> Path:
    """The same directory for each way to write it; symbolic links are left as they are."""
    path = os.path.normpath(directory)
    return Path(path[1:] if path.startswith("//") else path)  # POSIX leaves two slashes open


def _describe_wanted(service: str | None) -> str:
    return "database output" + (f" for the service {service!r}" if service is not None else "")


def _how_to_choose(service: str | None) -> str:
    if service is None:
        return "Name the service, or the directory that tbot writes to with --destination-dir."
    return "Choose one with --db-user and --db-name, or name its directory with --destination-dir."


def _how_to_correct(config: TbotConfig, candidates: Iterable[DestinationEntry]) -> str | None:
    if any(word.similar for word in config.unknown_words):
        return f"Correct {config.path}, or name the directory of the output with --destination-dir."
    if any(entry.directory is not None for entry in candidates):
        return (
            "Name one of these services, or the directory that tbot writes to with"
            " --destination-dir."
        )
    return None


def _not_found(
    config: TbotConfig,
    problem: str,
    candidates: Iterable[DestinationEntry],
    next_step: str | None = None,
) -> ConfigError:
    listing = "; ".join(_describe(entry) for entry in candidates) or "none at all"
    words = in_one_sentence(config.unknown_words)
    message = f"{config.path}: {problem}; it has {listing}{words}"
    return ConfigError(Code.DESTINATION_NOT_FOUND, message, next_step=next_step)


def _describe(entry: DestinationEntry) -> str:
    limits = [
        f"{name} {value!r}"
        for name, value in (("user", entry.username), ("database", entry.database))
        if value is not None
    ]
    target = f"directory {entry.directory}" if entry.directory is not None else "no directory"
    parts = (f"{entry.kind} for the service {entry.service!r}", *limits, target)
    return f"line {entry.line}: {', '.join(parts)}"
