"""Where to dial, made from what a Teleport Proxy has said."""

from dataclasses import dataclass

from dbproxy.errors import Code, UpstreamError
from dbproxy.upstream.address import ConfiguredAddress, ProxyAddress
from dbproxy.upstream.first_answer import Answer
from dbproxy.upstream.webapi import AnswerError, ClusterFacts, database_address

__all__ = ["UpstreamRoute", "decision_of", "has_tls_routing", "route_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRoute:
    """Where to dial, and what is known about it.

    Attributes:
        address: What to dial.
        tls_routing: Whether the connection is TLS with an ALPN value. If not, the address speaks
            the database protocol itself from the first byte: plain TCP, then what that protocol has
            for TLS (PostgreSQL: SSLRequest, `S`, TLS with the client's certificate). In passthrough
            the client does all of that, so its bytes are carried over bare TCP; in the other modes
            dbproxy has to do it, and to verify the server by the identity's authorities.
        decision: How it was decided, in words.
        cluster: The cluster's name, if known.
        server_version: The Teleport Proxy's version, if known.
        min_client_version: The oldest client that it serves, if known.
        discovery_problem: Why the address is only the configured one; None when that is as it
            should be.
    """

    address: ProxyAddress
    tls_routing: bool
    decision: str
    cluster: str | None = None
    server_version: str | None = None
    min_client_version: str | None = None
    discovery_problem: str | None = None


def has_tls_routing(facts: ClusterFacts) -> bool:
    """Only a plain no counts: where nothing is said, dialling finds out."""
    return facts.tls_routing_enabled is not False


def route_of(answer: Answer, configured: ConfiguredAddress, protocol: str) -> UpstreamRoute:
    """Where to dial for a database protocol.

    Args:
        answer: What the Teleport Proxy has said.
        configured: What the operator gave.
        protocol: The database protocol's name.

    Raises:
        UpstreamError: `tls-routing-off`.
    """
    facts = answer.facts
    address, decision = answer.web, decision_of(answer, configured)
    if not has_tls_routing(facts):
        address = _database_address(answer, protocol)
        decision = f"TLS routing is off; where {answer.address} says that {protocol} is served"
    return UpstreamRoute(
        address=address,
        tls_routing=has_tls_routing(facts),
        decision=decision,
        cluster=facts.cluster_name,
        server_version=facts.server_version,
        min_client_version=facts.min_client_version,
    )


def _database_address(answer: Answer, protocol: str) -> ProxyAddress:
    where = f"TLS routing is off in the cluster, and the Teleport Proxy at {answer.address}"
    try:
        address = database_address(answer.facts, protocol, answer.address)
    except AnswerError as error:
        raise UpstreamError(Code.TLS_ROUTING_OFF, f"{where} {error}") from error
    if address is None:
        raise UpstreamError(
            Code.TLS_ROUTING_OFF, f"{where} publishes no address for {protocol} databases"
        )
    return address


def decision_of(answer: Answer, configured: ConfiguredAddress) -> str:
    """How the web address came about, in words."""
    if answer.web != answer.address:
        return f"the public address that {answer.address} publishes"
    if configured.port is None:
        ports = " and ".join(str(address.port) for address in configured.candidates)
        return f"given with {configured.named_by}; of the ports {ports} this one answers"
    return f"as given with {configured.named_by}, and the Teleport Proxy names no other"
