"""The hot path: streams with layers, and moving bytes between two of them."""

from dbproxy.relay.keepalive import keep_alive
from dbproxy.relay.pump import Relay, RelayEnd
from dbproxy.relay.stream import LayeredStream

__all__ = ["LayeredStream", "Relay", "RelayEnd", "keep_alive"]
