"""Pages about the way to the Teleport Proxy."""

from typing import Final

from dbproxy.errors import Code
from dbproxy.explain.page import Look, Page, Sees

__all__ = ["UPSTREAM_PAGES"]

_SHOW_CERTIFICATE: Final = (
    "openssl s_client -connect teleport.example.com:443 -servername teleport.example.com"
    " -alpn teleport-postgres-ping,teleport-postgres </dev/null"
)
_IDENTITY: Final = "dbproxy -c /etc/tbot.yaml identity"

UPSTREAM_PAGES: Final = {
    Code.OUTBOUND_PROXY_UNREACHABLE: Page(
        story="""\
`HTTPS_PROXY` counts first, as for tsh and tbot, then `HTTP_PROXY`, then `ALL_PROXY`, in capitals or
small letters. The message says which one it was, and why the connection to the outbound proxy
failed: its name cannot be resolved, nothing listens at its port,
or, for `https://`, its certificate is not trusted. A port that is left out is 80, 443 or 1080, by
the kind of the proxy; many listen on 3128 or 8080.

A service of systemd does not see the variables of a login shell; `systemctl edit` sets them.
`NO_PROXY` takes names, domains (`.example.com`), addresses and networks, separated by commas.
Loopback addresses are never proxied.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look("env | grep -i _proxy", "the variables; a password may be among them"),
            Look("systemctl show dbproxy -p Environment", "the variables of the service"),
            Look(
                "curl -v https://teleport.example.com/webapi/ping",
                "whether curl, which reads the same variables, gets through",
            ),
        ),
        related=(Code.OUTBOUND_PROXY_REFUSED, Code.UPSTREAM_UNREACHABLE),
    ),
    Code.OUTBOUND_PROXY_REFUSED: Page(
        story="""\
The message has the answer of the outbound proxy. 407, or a SOCKS5 proxy that requires credentials:
write them into the variable, `http://USER:PASSWORD@HOST:PORT`, with special characters
percent-encoded (`@` is `%40`). dbproxy knows Basic authentication and no other. 403, or a SOCKS5
reply of 2: its rules do not allow the Teleport Proxy's name or port; many allow port 443 only. No
HTTP or no SOCKS5 at all: the scheme in the variable is not what listens at that port.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look(
                "curl -v https://teleport.example.com/webapi/ping",
                "the answer to `CONNECT`, and `Proxy-Authenticate` below it",
            ),
            Look("env | grep -i _proxy", "the variables; a password may be among them"),
        ),
        related=(Code.OUTBOUND_PROXY_UNREACHABLE, Code.UPSTREAM_UNREACHABLE),
    ),
    Code.UPSTREAM_UNREACHABLE: Page(
        story="""\
The message has the reason: the name cannot be resolved (DNS, or a typing mistake in `--proxy`),
nothing listens there (the wrong port: the web port is meant, usually 443 or 3080), no route to the
host, or no answer in time (a firewall that drops packets). dbproxy tries anew for each connection
and needs no restart.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look("curl -sS https://teleport.example.com/webapi/ping", "whether it answers at all"),
            Look("getent ahosts teleport.example.com", "the addresses that the name leads to"),
        ),
        related=(Code.UPSTREAM_TLS_FAILED, Code.UPSTREAM_UNTRUSTED),
    ),
    Code.UPSTREAM_UNTRUSTED: Page(
        story="""\
dbproxy trusts the system's authorities, those in `SSL_CERT_FILE` and `SSL_CERT_DIR`, the file named
with `--proxy-ca`, and the Host CA of the destination. The message says what was wrong: an unknown
issuer (a private authority, or a company's proxy that opens TLS on the way), another name (the
address in `--proxy` is an alias that the certificate does not have), or a certificate out of date.

Neither the identity's certificate nor a byte of a client has been sent: the check comes first.
`--insecure` switches the check off, and with it the protection against everybody on the way.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look(_SHOW_CERTIFICATE, "issuer and names of the certificate that is shown"),
            Look("ls -l /etc/ssl/certs | head", "whether the system has authorities at all"),
        ),
        related=(Code.UPSTREAM_TLS_FAILED, Code.FILE_UNUSABLE),
    ),
    Code.UPSTREAM_TLS_FAILED: Page(
        story="""\
Something answers at the address, but TLS does not come about: it is no TLS port (plain HTTP, SSH),
it speaks only versions before TLS 1.2, or something on the way cuts the connection. The message has
the reason in the words of the TLS library.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look(_SHOW_CERTIFICATE, "how far the handshake gets"),
            Look("curl -sS https://teleport.example.com/webapi/ping", "whether it is Teleport"),
        ),
        related=(Code.UPSTREAM_UNREACHABLE, Code.ALPN_NOT_SUPPORTED),
    ),
    Code.UPSTREAM_CLOSED_EARLY: Page(
        story="""\
The handshake went well, and then Teleport ended the connection without a byte. It does so when it
cannot or will not say why: no database agent serves the service (any more), the bot or one of its
roles is locked, a limit of connections is reached, or the certificate is pinned to another address.
Only Teleport's own logs have the reason; the time in dbproxy's record helps to find it.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look("tctl db ls", "whether an agent serves the service"),
            Look("tctl get locks", "locks on the bot, its user or its roles"),
            Look(_IDENTITY, "whether the certificate is pinned to an address"),
        ),
        related=(Code.CERTIFICATE_REJECTED, Code.ALPN_NOT_SUPPORTED),
    ),
    Code.UPSTREAM_LOST: Page(
        story="""\
The connection worked, and then it broke: it was reset, it was cut without the word that ends TLS,
or what came through it was damaged. A Teleport Proxy that restarts does that to its connections, so
does a load balancer with a time limit, and so does Teleport where the cluster ends sessions that
are idle or whose certificate has expired. The client is cut off in the same way, without a proper
end, so that it does not take half an answer for a whole one. New connections may well work.""",
        sees=Sees.CLOSED,
        looks=(
            Look("curl -sS https://teleport.example.com/webapi/ping", "whether Teleport is there"),
            Look("tctl get cluster_networking_config", "client_idle_timeout, proxy_ping_interval"),
        ),
        related=(Code.UPSTREAM_CLOSED_EARLY, Code.UPSTREAM_UNREACHABLE),
    ),
    Code.UPSTREAM_PROTOCOL_ERROR: Page(
        story="""\
The TLS connection stands, but what came through it is not what was agreed on: no ping frames where
the negotiated ALPN protocol has them, or another answer than PostgreSQL's to a request for TLS. The
server is then hardly a Teleport Proxy, or something on the way rewrites the traffic.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look(_SHOW_CERTIFICATE, "the line `ALPN protocol:`, and whose certificate it is"),
            Look("curl -sS https://teleport.example.com/webapi/ping", "whether it is Teleport"),
        ),
        related=(Code.ALPN_NOT_SUPPORTED, Code.UPSTREAM_TLS_FAILED),
    ),
    Code.ALPN_NOT_SUPPORTED: Page(
        story="""\
Database connections share Teleport's web port and are told apart by ALPN, a field in the TLS
handshake (Teleport calls that TLS routing). Three things stand in the way: the cluster has TLS
routing switched off (`proxy_listener_mode: separate`), it is too old for this database, or a load
balancer of layer 7, such as an AWS ALB or an nginx with `proxy_pass`, ends TLS itself.

A balancer of layer 4 that passes TLS through is no hindrance. Where both exist, name the other
address with `--proxy`.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look(_SHOW_CERTIFICATE, "`ALPN protocol: teleport-postgres-ping`, or none"),
            Look(
                "curl -sS https://teleport.example.com/webapi/ping",
                "`tls_routing_enabled` under `proxy`, and `server_version`",
            ),
        ),
        related=(Code.UPSTREAM_TLS_FAILED, Code.UPSTREAM_CLOSED_EARLY),
    ),
    Code.UPGRADE_FAILED: Page(
        story="""\
Where a layer 7 load balancer (such as an AWS ALB) ends TLS, dbproxy asks for
`/webapi/connectionupgrade` and then speaks to Teleport inside that connection. The message has the
answer. 404: this is no Teleport Proxy, or one older than version 10. 400 or 403: the balancer does
not pass WebSocket on, or a firewall in front of it refuses. 502 to 504: the balancer does not reach
Teleport.

Whether an upgrade is needed is tested; `--connection-upgrade` decides without the test, and so does
`TELEPORT_TLS_ROUTING_CONN_UPGRADE`. Some boxes refuse a request that offers two kinds of upgrade:
`TELEPORT_TLS_ROUTING_CONN_UPGRADE_MODE` as `websocket` or `legacy` offers one.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look(_SHOW_CERTIFICATE, "an ALPN protocol: then no upgrade is needed"),
            Look(
                "curl -si --http1.1 -H 'Connection: Upgrade' -H 'Upgrade: alpn' -m 5"
                " https://teleport.example.com/webapi/connectionupgrade",
                "`101 Switching Protocols`, or the answer that dbproxy gets",
            ),
            Look("env | grep TELEPORT_", "the variables that decide about the upgrade"),
        ),
        related=(Code.ALPN_NOT_SUPPORTED, Code.UPSTREAM_TLS_FAILED),
    ),
    Code.CERTIFICATE_REJECTED: Page(
        story="""\
Teleport answered our certificate with a TLS alert, which the message names. `unknown_ca`: the
certificate comes from another cluster, or from an authority that has been rotated out since.
`certificate_expired`: Teleport's clock says so; compare the clocks. `bad_certificate` and
`access_denied`: Teleport does not take it for this purpose. dbproxy has looked for a newer
certificate just before, so a restart changes nothing.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look(_IDENTITY, "the cluster that issued the certificate, and its validity"),
            Look("tctl status", "fingerprints and the state of a rotation (as an administrator)"),
            Look("systemctl restart tbot", "(makes tbot fetch a new certificate now)"),
        ),
        related=(
            Code.CERTIFICATE_EXPIRED,
            Code.CERTIFICATE_NOT_YET_VALID,
            Code.UPSTREAM_CLOSED_EARLY,
        ),
    ),
}
