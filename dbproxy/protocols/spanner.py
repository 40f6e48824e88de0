"""Google Cloud Spanner, as Teleport carries it: gRPC, so HTTP/2."""

import shlex

from dbproxy.protocols.base import ConnectionFacts
from dbproxy.protocols.client_first import ClientFirst
from dbproxy.protocols.command_line import files_of, place_of
from dbproxy.protocols.wire.http2 import HTTP2Wire
from dbproxy.settings import Mode

__all__ = ["Spanner"]


class Spanner(ClientFirst):
    """Google Cloud Spanner."""

    name = "spanner"
    readable_name = "Spanner (gRPC)"
    alpn = ("teleport-spanner-ping", "teleport-spanner")
    default_port = 443
    wire = HTTP2Wire()
    tls_protocol = b"h2"
    passthrough = False

    def connect_command(self, facts: ConnectionFacts) -> str:
        place = place_of(facts)
        if facts.mode is Mode.TUNNEL:
            # spanner-cli takes the address of an endpoint without TLS from this variable only.
            return f"env SPANNER_EMULATOR_HOST={shlex.quote(place)} spanner-cli"
        files = files_of(facts, ca="-cacert", certificate="-cert", key="-key")
        words = ["grpcurl", *(word for option in files for word in option), place, "list"]
        return shlex.join(words)
