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
from dbproxy.protocols.client_command import ClientCommand, Piped, Word, plain_words
from dbproxy.protocols.environment import ClientEnvironment, client_environment
from dbproxy.protocols.mysql import MySQL
from dbproxy.protocols.sqlserver import SQLServer
from dbproxy.protocols.teleport_words import reason_for

__all__ = [
    "Answering",
    "Carry",
    "ClientCommand",
    "ClientEnvironment",
    "ConnectionFacts",
    "Conversation",
    "DatabaseProtocol",
    "Greeting",
    "GreetingReader",
    "MySQL",
    "Piped",
    "Prologue",
    "PrologueEvent",
    "Refuser",
    "Reply",
    "SQLServer",
    "Say",
    "StartTLS",
    "UpstreamGreeting",
    "VerdictReader",
    "Word",
    "check_mode",
    "choose_protocol",
    "client_environment",
    "plain_words",
    "protocol_named",
    "reason_for",
]
