"""MongoDB, as Teleport carries it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dbproxy.protocols.client_command import ClientCommand, Piped, Word
from dbproxy.protocols.client_first import ClientFirst
from dbproxy.protocols.connection_facts import ConnectionFacts
from dbproxy.protocols.uris import URI, Unavailable, database_uri, encoded
from dbproxy.protocols.wire.mongodb import MongoDBWire

__all__ = ["MongoDB"]

_SOCKET: Final = ".sock"
_OTHER_SOCKET: Final = f"MongoDB's drivers take only Unix sockets whose name ends in {_SOCKET}"
_TWO_FILES: Final = (
    "MongoDB's drivers take certificate and key from one file, and there are two: let tbot write"
    " it (`format: mongo` in its output), or use --tunnel"
)


class MongoDB(ClientFirst):
    """MongoDB, and what speaks its protocol."""

    name = "mongodb"
    readable_name = "MongoDB"
    alpn = ("teleport-mongodb-ping", "teleport-mongodb")
    default_port = 27017
    wire = MongoDBWire()

    def client(self, facts: ConnectionFacts) -> ClientCommand:
        words: list[Word] = ["mongosh", _uri(facts)]
        if not facts.plain:
            words.append("--tls")
            if facts.ca_file is not None:
                words += ["--tlsCAFile", str(facts.ca_file)]
            words += ["--tlsCertificateKeyFile", _one_file(facts)]
        return ClientCommand(tuple(words))

    def variables(self, facts: ConnectionFacts) -> Mapping[str, str | None]:
        uri = self.uris(facts)["mongo"]
        return {"MONGODB_URI": uri if isinstance(uri, str) else None}

    def uris(self, facts: ConnectionFacts) -> Mapping[str, URI]:
        if facts.socket is not None and facts.socket.suffix != _SOCKET:
            return {"mongo": Unavailable(_OTHER_SOCKET)}
        if facts.plain:
            return {"mongo": _uri(facts)}
        if not isinstance(both := _one_file(facts), str):
            return {"mongo": Unavailable(_TWO_FILES)}
        tls = {"tls": "true", "tlsCertificateKeyFile": both}
        if facts.ca_file is not None:
            tls["tlsCAFile"] = str(facts.ca_file)
        return {"mongo": _uri(facts, tls)}


def _uri(facts: ConnectionFacts, tls: Mapping[str, str] | None = None) -> str:
    """Without the user, who is known from the certificate."""
    place = encoded(str(facts.socket)) if facts.socket is not None else None
    parameters = {"directConnection": "true"} | dict(tls or {})
    return database_uri("mongodb", facts, parameters, place=place, user="")


def _one_file(facts: ConnectionFacts) -> Word:
    """MongoDB's clients want certificate and key in one file, as tbot's `mongo` format has it.

    Where they are two files, one of them is made for as long as it takes to read it.
    """
    certificate, key = (file or Path() for file in (facts.certificate_file, facts.key_file))
    return str(certificate) if certificate == key else Piped((certificate, key))
