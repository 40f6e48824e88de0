"""Google Cloud Spanner, as Teleport carries it: gRPC, so HTTP/2."""

from collections.abc import Mapping
from typing import Final

from dbproxy.protocols.client_command import ClientCommand
from dbproxy.protocols.client_first import ClientFirst
from dbproxy.protocols.connection_facts import ConnectionFacts, files_of, place_of
from dbproxy.protocols.wire.http2 import HTTP2Wire

__all__ = ["Spanner"]

_NO_CERTIFICATE: Final = (
    "Spanner's own clients show no client certificate: use --tunnel, or a gRPC client of your own"
)


class Spanner(ClientFirst):
    """Google Cloud Spanner."""

    name = "spanner"
    readable_name = "Spanner (gRPC)"
    alpn = ("teleport-spanner-ping", "teleport-spanner")
    default_port = 443
    wire = HTTP2Wire()
    tls_protocol = b"h2"
    passthrough = False

    def client(self, facts: ConnectionFacts) -> ClientCommand:
        if facts.plain:
            return ClientCommand(("spanner-cli",), _emulator(facts))
        files = files_of(facts, ca="-cacert", certificate="-cert", key="-key")
        words = ["grpcurl", *(word for option in files for word in option), place_of(facts), "list"]
        return ClientCommand(tuple(words), instead=_NO_CERTIFICATE)

    def variables(self, facts: ConnectionFacts) -> Mapping[str, str | None]:
        return _emulator(facts) if facts.plain else {}


def _emulator(facts: ConnectionFacts) -> dict[str, str]:
    """The only way to name an endpoint without TLS."""
    return {"SPANNER_EMULATOR_HOST": place_of(facts)}
