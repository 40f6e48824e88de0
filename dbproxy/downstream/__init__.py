"""The local side: listening, letting clients in, serving them."""

from dbproxy.downstream.admit import Admission, RelayedAdmission
from dbproxy.downstream.bridge import Bridge
from dbproxy.downstream.client_endpoint import ClientEndpoint, client_endpoint
from dbproxy.downstream.connection import ConnectionHandler
from dbproxy.downstream.given_certificate import given_server_certificate
from dbproxy.downstream.listen import (
    ListenAddress,
    TCPAddress,
    UnixAddress,
    listen_address,
    open_listener,
    remove_name,
)
from dbproxy.downstream.listener import Listener
from dbproxy.downstream.local_authority import (
    LocalAuthority,
    ServerCertificate,
    default_state_directory,
)
from dbproxy.downstream.peer import describe_address
from dbproxy.downstream.terminate import TerminatingAdmission

__all__ = [
    "Admission",
    "Bridge",
    "ClientEndpoint",
    "ConnectionHandler",
    "ListenAddress",
    "Listener",
    "LocalAuthority",
    "RelayedAdmission",
    "ServerCertificate",
    "TCPAddress",
    "TerminatingAdmission",
    "UnixAddress",
    "client_endpoint",
    "default_state_directory",
    "describe_address",
    "given_server_certificate",
    "listen_address",
    "open_listener",
    "remove_name",
]
