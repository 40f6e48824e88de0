"""Reaching the Teleport Proxy."""

from dbproxy.upstream.address import ProxyAddress
from dbproxy.upstream.attempts import Attempts, Retry
from dbproxy.upstream.dial import UpstreamConnection, UpstreamDialer
from dbproxy.upstream.explain import explain_early_end, explain_loss
from dbproxy.upstream.roots import RootsFile
from dbproxy.upstream.trust import UpstreamTrust

__all__ = [
    "Attempts",
    "ProxyAddress",
    "Retry",
    "RootsFile",
    "UpstreamConnection",
    "UpstreamDialer",
    "UpstreamTrust",
    "explain_early_end",
    "explain_loss",
]
