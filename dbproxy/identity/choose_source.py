"""From the settings to the source of the identity."""

from dataclasses import dataclass
from pathlib import Path

from dbproxy.identity.locate import Location, lifetime_in, locate
from dbproxy.identity.source import (
    DestinationSource,
    IdentityFileSource,
    IdentitySource,
    NamedFilesSource,
)
from dbproxy.identity.tbot_config import TbotConfig
from dbproxy.identity.tbot_entries import Lifetime
from dbproxy.settings import Settings

__all__ = ["ChosenSource", "choose_source"]


@dataclass(frozen=True, slots=True)
class ChosenSource:
    """Where the identity comes from.

    Attributes:
        source: What reads it.
        lifetime: How long its certificates last and how often they are renewed, as far as known.
        location: The destination; `None` when files were named instead.
    """

    source: IdentitySource
    lifetime: Lifetime
    location: Location | None = None


def choose_source(settings: Settings, config: TbotConfig | None) -> ChosenSource:
    """The files that were named, else the destination that fits.

    Raises:
        UsageError: Nothing says where the identity is.
        ConfigError: With `Code.DESTINATION_NOT_FOUND` when the configuration has no output that
            fits, or more than one.
    """
    named = _named_source(settings)
    if named is not None:
        return ChosenSource(named, lifetime_in(named.directory, config, settings.service))
    location = locate(
        destination_dir=settings.destination_dir,
        config=config,
        service=settings.service,
        username=settings.db_user,
        database=settings.db_name,
    )
    source = DestinationSource(location.directory, formats=location.formats, names=location.names)
    if location.entry is not None:
        return ChosenSource(source, location.entry.lifetime, location)
    lifetime = lifetime_in(location.directory, config, settings.service)
    return ChosenSource(source, lifetime, location)


def _named_source(settings: Settings) -> IdentitySource | None:
    if settings.identity_file is not None:
        return IdentityFileSource(settings.identity_file)
    match settings.cert, settings.key, settings.ca:
        case Path() as certificate, Path() as key, Path() as authorities:
            return NamedFilesSource(certificate, key, authorities)
        case _:
            return None
