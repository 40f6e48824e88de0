"""MongoDB, as Teleport carries it."""

import shlex
from pathlib import Path
from urllib.parse import quote

from dbproxy.protocols.base import ConnectionFacts
from dbproxy.protocols.client_first import ClientFirst
from dbproxy.protocols.command_line import place_of
from dbproxy.protocols.wire.mongodb import MongoDBWire
from dbproxy.settings import Mode

__all__ = ["MongoDB"]


class MongoDB(ClientFirst):
    """MongoDB, and what speaks its protocol."""

    name = "mongodb"
    readable_name = "MongoDB"
    alpn = ("teleport-mongodb-ping", "teleport-mongodb")
    default_port = 27017
    wire = MongoDBWire()

    def connect_command(self, facts: ConnectionFacts) -> str:
        place = quote(str(facts.socket), safe="") if facts.socket is not None else place_of(facts)
        uri = f"mongodb://{place}/{quote(facts.database or '', safe='')}?directConnection=true"
        words = ["mongosh", shlex.quote(uri)]
        if facts.mode is not Mode.TUNNEL:
            words.append("--tls")
            if facts.ca_file is not None:
                words += ["--tlsCAFile", shlex.quote(str(facts.ca_file))]
            words += ["--tlsCertificateKeyFile", _one_file(facts)]
        return " ".join(words)


def _one_file(facts: ConnectionFacts) -> str:
    """MongoDB's clients want certificate and key in one file, as tbot's `mongo` template has it.

    Where they are two files, the shell makes one of them for as long as it takes to read it.
    """
    certificate, key = (
        shlex.quote(str(file or Path())) for file in (facts.certificate_file, facts.key_file)
    )
    return certificate if certificate == key else f"<(cat {certificate} {key})"
