"""What tbot wrote: reading it, checking it, and following its renewals."""

from dbproxy.identity.certificate import Subject, parse_subject
from dbproxy.identity.choose_source import ChosenSource, choose_source
from dbproxy.identity.destination import read_destination
from dbproxy.identity.duration import parse_go_duration
from dbproxy.identity.identity import Identity, IdentityFiles
from dbproxy.identity.layout import DEFAULT_NAMES, FileNames, Format
from dbproxy.identity.locate import Location, locate
from dbproxy.identity.named_files import read_certificates, read_key_pair
from dbproxy.identity.pem import PrivateKey, load_certificates, load_private_key
from dbproxy.identity.route import Route
from dbproxy.identity.source import (
    DestinationSource,
    Explanation,
    IdentityFileSource,
    IdentitySource,
    NamedFilesSource,
    Role,
    UsedFile,
)
from dbproxy.identity.stamp import Stamp
from dbproxy.identity.store import IdentityStore
from dbproxy.identity.tbot_config import TbotConfig, load_tbot_config, parse_tbot_config
from dbproxy.identity.tbot_entries import DestinationEntry, Lifetime, TunnelService
from dbproxy.identity.waiting import load_within
from dbproxy.identity.watch import watch

__all__ = [
    "DEFAULT_NAMES",
    "ChosenSource",
    "DestinationEntry",
    "DestinationSource",
    "Explanation",
    "FileNames",
    "Format",
    "Identity",
    "IdentityFileSource",
    "IdentityFiles",
    "IdentitySource",
    "IdentityStore",
    "Lifetime",
    "Location",
    "NamedFilesSource",
    "PrivateKey",
    "Role",
    "Route",
    "Stamp",
    "Subject",
    "TbotConfig",
    "TunnelService",
    "UsedFile",
    "choose_source",
    "load_certificates",
    "load_private_key",
    "load_tbot_config",
    "load_within",
    "locate",
    "parse_go_duration",
    "parse_subject",
    "parse_tbot_config",
    "read_certificates",
    "read_destination",
    "read_key_pair",
    "watch",
]
