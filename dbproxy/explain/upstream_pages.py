"""Pages about the way to the Teleport Proxy."""

from typing import Final

from dbproxy.errors import Code
from dbproxy.explain.page import Look, Page, Sees

__all__ = ["UPSTREAM_PAGES"]

_SHOW_CERTIFICATE: Final = (
    "openssl s_client -connect teleport.example.com:443 -servername teleport.example.com"
    " -alpn teleport-postgres-ping,teleport-postgres </dev/null"
)
_ASK: Final = "curl -sS https://teleport.example.com/webapi/find"
_SHOW_DETAILS: Final = (
    "openssl s_client -connect teleport.example.com:443 -servername teleport.example.com </dev/null"
    " | openssl x509 -noout -text"
)
_SHOW_PIN: Final = (
    "openssl s_client -connect teleport.example.com:443 -servername teleport.example.com </dev/null"
    " | openssl x509 -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum"
)
_IDENTITY: Final = "dbproxy -c /etc/tbot.yaml identity"

UPSTREAM_PAGES: Final = {
    Code.DISCOVERY_FAILED: Page(
        story="""\
A Teleport Proxy tells everybody who asks (`/webapi/find`) where it wants to be reached and whether
databases share its web port. Without an answer dbproxy goes on with what it knows: the last answer,
or else the configured address, with port 443 where none was given. A connection may work all the
same; if it does not, its own error says why. The question is asked again at a later connection.

The message has the reason. A wrong address, a certificate that is not trusted and a network that is
down stop connections, too. A web page or HTTP status 404 means that something else than a Teleport
Proxy answers there: `auth_server` in tbot.yaml may name the Auth Service, which is no Teleport
Proxy. Name that one with `--proxy` then.

With `--no-discovery`, or tbot's `TBOT_USE_PROXY_ADDR=yes`, nobody is asked.""",
        sees=Sees.NOTHING,
        looks=(
            Look(_ASK, "JSON with `public_addr` under `proxy` and `ssh`"),
            Look("getent ahosts teleport.example.com", "the addresses that the name leads to"),
        ),
        related=(Code.UPSTREAM_UNREACHABLE, Code.UPSTREAM_UNTRUSTED, Code.TLS_ROUTING_OFF),
    ),
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
with `--proxy-ca`, and the Host CA of the destination. Behind a balancer that takes Teleport's
connections as an upgrade, the inner certificate must come from the Host CA. The message says which
certificate was not accepted. Usual causes: a private authority, or a company's proxy that opens TLS
on the way; a Host CA that was rotated while tbot did not renew.

Neither the identity's certificate nor a byte of a client has been sent: the check comes first.
`--insecure` switches the check off, and with it the protection against everybody on the way.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look(_SHOW_CERTIFICATE, "issuer and names of the certificate that is shown"),
            Look("ls -l /etc/ssl/certs | head", "whether the system has authorities at all"),
        ),
        related=(
            Code.UPSTREAM_CHAIN_INCOMPLETE,
            Code.UPSTREAM_SELF_SIGNED,
            Code.FILE_UNUSABLE,
        ),
    ),
    Code.UPSTREAM_CHAIN_INCOMPLETE: Page(
        story="""\
Authorities sign from an intermediate certificate, and a server has to send it along with its own.
This one sends its own alone. Browsers hide that mistake, because they fetch or remember
intermediates; dbproxy and Teleport's own tools do not. It is a guess from the certificate: it says
where its issuer's certificate can be fetched, or its issuer belongs to the organisation of an
authority that was named with `--proxy-ca`. If the issuer is a private authority instead, name that
with `--proxy-ca`.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look(_SHOW_CERTIFICATE, "under `Certificate chain`: one entry only"),
            Look(_SHOW_DETAILS, "`CA Issuers`: where the intermediate certificate can be fetched"),
        ),
        related=(Code.UPSTREAM_UNTRUSTED,),
    ),
    Code.UPSTREAM_SELF_SIGNED: Page(
        story="""\
A Teleport Proxy without a configured certificate makes one for itself at its first start, and
signs it itself. Fetch it over a way that you trust and name it with `--proxy-ca`: then it is
verified like any other, also its name and its dates. Or pin its key: `--insecure` with
`--proxy-pin` trusts the holder of that key and nobody else, whatever name and dates the
certificate has.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look(_SHOW_CERTIFICATE, "the certificate in PEM; compare it with the Proxy's own"),
            Look(_SHOW_PIN, "the pin, in hexadecimal"),
        ),
        related=(Code.UPSTREAM_UNTRUSTED, Code.UPSTREAM_PIN_MISMATCH),
    ),
    Code.UPSTREAM_CERTIFICATE_EXPIRED: Page(
        story="""\
The message says whether it is the server's own certificate or one of an authority's. Nobody can
connect to that Teleport Proxy then, also no browser; if others can, the clock of this host is
ahead. dbproxy tries anew for each connection and needs no restart once the certificate is
renewed.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look(_SHOW_DETAILS, "`Not After` of the certificate"),
            Look("timedatectl", "`System clock synchronized: yes`"),
        ),
        related=(Code.UPSTREAM_CERTIFICATE_NOT_YET_VALID, Code.CERTIFICATE_EXPIRED),
    ),
    Code.UPSTREAM_CERTIFICATE_NOT_YET_VALID: Page(
        story="""\
A host whose clock is behind finds certificates that were issued just now in the future; hosts
without a battery, and virtual machines that were suspended, are behind after a start. A certificate
that was made for a later date is the rarer cause.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look("timedatectl", "`System clock synchronized: yes`"),
            Look(_SHOW_DETAILS, "`Not Before` of the certificate"),
        ),
        related=(Code.UPSTREAM_CERTIFICATE_EXPIRED, Code.CLOCK_WRONG),
    ),
    Code.UPSTREAM_NAME_MISMATCH: Page(
        story="""\
The certificate is in order, but for other names, which the message lists: the address in
`--proxy` is an alias or an IP address that the certificate does not have, or it leads to another
server. A wildcard stands for one label: `*.example.com` is for `teleport.example.com`, not for
`a.b.example.com`.

Where the address must stay as it is (an address inside of a network, a tunnel), `--server-name`
says which name to ask for and to expect instead.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look(_SHOW_DETAILS, "the names under `Subject Alternative Name`"),
            Look("getent ahosts teleport.example.com", "the addresses that the name leads to"),
        ),
        related=(Code.UPSTREAM_NAME_MISSING, Code.UPSTREAM_UNREACHABLE),
    ),
    Code.UPSTREAM_NAME_MISSING: Page(
        story="""\
Certificates name their hosts in an extension, the subject alternative names. This one has none, as
home-made certificates of old have. The common name in the subject has not counted for servers since
RFC 6125 (2011), neither for browsers nor for Teleport's own tools.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(Look(_SHOW_DETAILS, "`Subject Alternative Name`, which is missing"),),
        related=(Code.UPSTREAM_NAME_MISMATCH,),
    ),
    Code.UPSTREAM_CERTIFICATE_PURPOSE: Page(
        story="""\
A certificate can say what it is for, in its extended key usage. This one, or an authority's above
it, leaves out servers: most likely a client's or a mail certificate was put into the Teleport
Proxy's configuration.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(Look(_SHOW_DETAILS, "`X509v3 Extended Key Usage`"),),
        related=(Code.UPSTREAM_UNTRUSTED,),
    ),
    Code.UPSTREAM_SIGNATURE_WEAK: Page(
        story="""\
Signatures by MD5 and SHA-1 can be forged, so dbproxy takes them from nobody, whatever the
settings of the system's TLS library are. The message says whether it is the server's own
certificate or one of an authority's. The signature of a root on itself does not count, because a
root is trusted by name.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(Look(_SHOW_DETAILS, "`Signature Algorithm`"),),
        related=(Code.UPSTREAM_KEY_WEAK,),
    ),
    Code.UPSTREAM_KEY_WEAK: Page(
        story="""\
RSA keys of less than 2048 bits, and elliptic curves of less than 224, are within reach of those
who want to read along, so dbproxy takes them from nobody (OpenSSL's security level 2, whatever
the settings of the system are). The message says whether it is the server's own certificate or
one of an authority's.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(Look(_SHOW_DETAILS, "`Public-Key:` and its bits"),),
        related=(Code.UPSTREAM_SIGNATURE_WEAK,),
    ),
    Code.UPSTREAM_PIN_MISMATCH: Page(
        story="""\
The certificate may well be in order otherwise, but none of the keys in its verified chain is
pinned. With `--insecure` the chain is not verified, so the key must be the certificate's own.
The message has the pin of the certificate that was shown, to compare, not to copy: first find
out from the administrators of the cluster whether their key was replaced. Before a planned
replacement give both pins, the old and the new one.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look(_SHOW_PIN, "the pin of the certificate that is shown, in hexadecimal"),
            Look(_SHOW_CERTIFICATE, "who has issued it"),
        ),
        related=(Code.UPSTREAM_UNTRUSTED, Code.UPSTREAM_SELF_SIGNED),
    ),
    Code.UPSTREAM_TLS_TOO_OLD: Page(
        story="""\
dbproxy speaks TLS 1.2 and 1.3, as every Teleport Proxy does. A server that offers neither is no
Teleport Proxy, or something stands in front of it and ends TLS: an old balancer, or a box that
looks into the traffic.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look(_SHOW_CERTIFICATE, "the line with the protocol's version, or the alert"),
            Look("curl -sS https://teleport.example.com/webapi/ping", "whether it is Teleport"),
        ),
        related=(Code.UPSTREAM_TLS_FAILED, Code.UPSTREAM_NOT_TELEPORT),
    ),
    Code.UPSTREAM_NOT_TELEPORT: Page(
        story="""\
The first bytes of the answer are not TLS, and the message says what they look like: an SSH
server (Teleport's own SSH port, 3023, is one as well), a web server on a port without TLS, a
database. Most often the port is missing or wrong in `--proxy`, or the address is that of the
database itself: dbproxy is not told where the database is, Teleport knows.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look("curl -sS https://teleport.example.com/webapi/ping", "whether it is Teleport"),
            Look("tsh status", "the `Profile URL`, which has the web address"),
        ),
        related=(Code.UPSTREAM_TLS_FAILED, Code.ALPN_NOT_SUPPORTED),
    ),
    Code.UPSTREAM_TLS_FAILED: Page(
        story="""\
Something answers at the address, and it may well be TLS, but the handshake does not come about:
no cipher is shared, or something on the way cuts the connection. The message has the reason in
the words of the TLS library.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look(_SHOW_CERTIFICATE, "how far the handshake gets"),
            Look("curl -sS https://teleport.example.com/webapi/ping", "whether it is Teleport"),
        ),
        related=(
            Code.UPSTREAM_UNREACHABLE,
            Code.UPSTREAM_NOT_TELEPORT,
            Code.UPSTREAM_TLS_TOO_OLD,
            Code.ALPN_NOT_SUPPORTED,
        ),
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
    Code.UPSTREAM_SILENT: Page(
        story="""\
A Teleport Proxy sends pings, every 30 seconds unless the cluster is set up otherwise, also when
nobody says anything. dbproxy measures how often they come, and when not a byte has come for three
times as long, it ends the connection, so that the client need not wait for ever. The machine at the
other end is gone, or a firewall or load balancer on the way has forgotten the connection. A client
that does not read is no reason: the time counts only while dbproxy waits for the upstream. One that
has not been answered at all yet is told; any other is cut off.""",
        sees=Sees.CLOSED,
        looks=(
            Look("curl -sS https://teleport.example.com/webapi/ping", "whether Teleport is there"),
            Look("tctl get cluster_networking_config", "proxy_ping_interval"),
        ),
        related=(Code.UPSTREAM_LOST, Code.UPSTREAM_UNREACHABLE),
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
    Code.TLS_ROUTING_OFF: Page(
        story="""\
With TLS routing (`proxy_listener_mode: multiplex`) databases share Teleport's web port. The
Teleport Proxy has answered that it is off (`separate`). Each database protocol then has an address
of its own, which is published (`postgres_public_addr`, `mysql_public_addr`, `mongo_public_addr`),
and none is published for this one: the Teleport Proxy does not listen for it, or the protocol
exists with TLS routing only. The message says so if what is published cannot be understood.
When TLS routing is switched on, dbproxy notices within ten minutes, without a restart.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look(_ASK, "`tls_routing_enabled` and `db` under `proxy`"),
            Look("tctl get cluster_networking_config", "`proxy_listener_mode` (0: separate)"),
        ),
        related=(Code.ALPN_NOT_SUPPORTED, Code.DISCOVERY_FAILED),
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
