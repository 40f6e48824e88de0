"""Byte transforms on a connection, without I/O: TLS, ping framing and WebSocket frames."""

from dbproxy.layers.base import Layer, LayerError, TruncatedError
from dbproxy.layers.ping import PingError, PingLayer
from dbproxy.layers.stack import LayerStack
from dbproxy.layers.tds import TDSHandshakeError, TDSHandshakeLayer
from dbproxy.layers.tls import TLSError, TLSLayer
from dbproxy.layers.verify import MALFORMED_CERTIFICATE, describe_verify_error
from dbproxy.layers.websocket import WebSocketError, WebSocketLayer

__all__ = [
    "MALFORMED_CERTIFICATE",
    "Layer",
    "LayerError",
    "LayerStack",
    "PingError",
    "PingLayer",
    "TDSHandshakeError",
    "TDSHandshakeLayer",
    "TLSError",
    "TLSLayer",
    "TruncatedError",
    "WebSocketError",
    "WebSocketLayer",
    "describe_verify_error",
]
