"""Reaching the Teleport Proxy."""

from dbproxy.upstream.address import ConfiguredAddress, ProxyAddress
from dbproxy.upstream.attempts import Attempts, Retry
from dbproxy.upstream.dial import UpstreamConnection, UpstreamDialer
from dbproxy.upstream.discovery import Discovery, FixedRoute, RouteFinder
from dbproxy.upstream.explain import (
    explain_early_end,
    explain_end_after_greeting,
    explain_loss,
    reasons_of,
)
from dbproxy.upstream.fetch import WebFetcher
from dbproxy.upstream.first_answer import Fetch
from dbproxy.upstream.names import parse_server_name
from dbproxy.upstream.pins import parse_pins
from dbproxy.upstream.prewarm import ReadyConnections
from dbproxy.upstream.roots import RootsFile
from dbproxy.upstream.route import UpstreamRoute
from dbproxy.upstream.secure import SecureDialer, too_slow
from dbproxy.upstream.starttls import ask_for_tls, greet
from dbproxy.upstream.transport import Transport
from dbproxy.upstream.trust import UpstreamTrust
from dbproxy.upstream.webapi import FetchedAnswer

__all__ = [
    "Attempts",
    "ConfiguredAddress",
    "Discovery",
    "Fetch",
    "FetchedAnswer",
    "FixedRoute",
    "ProxyAddress",
    "ReadyConnections",
    "Retry",
    "RootsFile",
    "RouteFinder",
    "SecureDialer",
    "Transport",
    "UpstreamConnection",
    "UpstreamDialer",
    "UpstreamRoute",
    "UpstreamTrust",
    "WebFetcher",
    "ask_for_tls",
    "explain_early_end",
    "explain_end_after_greeting",
    "explain_loss",
    "greet",
    "parse_pins",
    "parse_server_name",
    "reasons_of",
    "too_slow",
]
