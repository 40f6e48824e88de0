"""Reaching the Teleport Proxy."""

from dbproxy.upstream.address import ProxyAddress
from dbproxy.upstream.dial import UpstreamConnection, UpstreamDialer
from dbproxy.upstream.explain import explain_early_end, explain_loss
from dbproxy.upstream.names import parse_server_name
from dbproxy.upstream.pins import parse_pins
from dbproxy.upstream.roots import RootsFile
from dbproxy.upstream.trust import UpstreamTrust

__all__ = [
    "ProxyAddress",
    "RootsFile",
    "UpstreamConnection",
    "UpstreamDialer",
    "UpstreamTrust",
    "explain_early_end",
    "explain_loss",
    "parse_pins",
    "parse_server_name",
]
