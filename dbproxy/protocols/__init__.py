"""Database wire protocols, without I/O: what their first packets mean and how they say no."""

from dbproxy.protocols.base import (
    Carry,
    ConnectionFacts,
    DatabaseProtocol,
    Prologue,
    PrologueEvent,
    Reply,
    StartTLS,
    UpstreamGreeting,
)
from dbproxy.protocols.choice import check_mode, choose_protocol, protocol_named

__all__ = [
    "Carry",
    "ConnectionFacts",
    "DatabaseProtocol",
    "Prologue",
    "PrologueEvent",
    "Reply",
    "StartTLS",
    "UpstreamGreeting",
    "check_mode",
    "choose_protocol",
    "protocol_named",
]
