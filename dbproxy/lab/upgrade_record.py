"""What the upgrade endpoint saw of a client: for assertions."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_PONGS = 1000
"""How many pongs are remembered."""


@dataclass
class Upgrade:
    """One request to the upgrade endpoint, filled in as things happen.

    Attributes:
        peer: the client's address.
        headers: the request's headers, names in lower case; values of repeated ones are joined by
            a comma.
        mode: what the server chose: ``websocket``, ``alpn-ping``, ``alpn``; empty for none.
        protocol: what runs inside: ``alpn-ping`` or ``alpn``; empty when nothing does.
        status: the answer's status.
        violations: what the client's WebSocket frames did that they should not have.
        binary_frames: how many binary frames the client has begun to send.
        zero_keys_only: whether every masking key of the client was zero.
        pings: how many WebSocket pings the server has sent.
        pongs: payloads of the client's latest pongs, oldest first.
    """

    peer: str
    headers: Mapping[str, str]
    mode: str = ""
    protocol: str = ""
    status: int = 0
    violations: list[str] = field(default_factory=list)
    binary_frames: int = 0
    zero_keys_only: bool = True
    pings: int = 0
    pongs: deque[bytes] = field(default_factory=lambda: deque(maxlen=MAX_PONGS))
