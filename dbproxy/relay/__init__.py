"""The hot path: streams with layers, and moving bytes between two of them."""

from dbproxy.relay.ending import RelayEnd
from dbproxy.relay.engine import AnyRelay, RelayEngine
from dbproxy.relay.first_flight import FirstFlight
from dbproxy.relay.keepalive import keep_alive
from dbproxy.relay.liveness import Liveness
from dbproxy.relay.pump import BUSY, Relay
from dbproxy.relay.quiet import take_in, wait_until_readable
from dbproxy.relay.reactor import own_the_loop
from dbproxy.relay.silence import PingWatch, SilenceError
from dbproxy.relay.socket_io import bytes_on_their_way, connect_now
from dbproxy.relay.stream import LayeredStream, closed_on_failure

__all__ = [
    "BUSY",
    "AnyRelay",
    "FirstFlight",
    "LayeredStream",
    "Liveness",
    "PingWatch",
    "Relay",
    "RelayEnd",
    "RelayEngine",
    "SilenceError",
    "bytes_on_their_way",
    "closed_on_failure",
    "connect_now",
    "keep_alive",
    "own_the_loop",
    "take_in",
    "wait_until_readable",
]
