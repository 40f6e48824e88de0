"""Database wire protocols, without I/O: what their first packets mean and how they say no."""

from dbproxy.protocols.base import (
    Answering,
    Carry,
    ConnectionFacts,
    Conversation,
    DatabaseProtocol,
    Greeting,
    GreetingReader,
    Prologue,
    PrologueEvent,
    Refuser,
    Reply,
    Say,
    StartTLS,
    UpstreamGreeting,
    VerdictReader,
)
from dbproxy.protocols.choice import check_mode, choose_protocol, protocol_named
from dbproxy.protocols.mysql import MySQL
from dbproxy.protocols.sqlserver import SQLServer
from dbproxy.protocols.teleport_words import reason_for

__all__ = [
    "Answering",
    "Carry",
    "ConnectionFacts",
    "Conversation",
    "DatabaseProtocol",
    "Greeting",
    "GreetingReader",
    "MySQL",
    "Prologue",
    "PrologueEvent",
    "Refuser",
    "Reply",
    "SQLServer",
    "Say",
    "StartTLS",
    "UpstreamGreeting",
    "VerdictReader",
    "check_mode",
    "choose_protocol",
    "protocol_named",
    "reason_for",
]
