"""What can go wrong, in one table.

Every failure that a user can meet has a `Code`. Its row in `PROBLEMS` says whose fault it is, what
it means, what the operator does next and what the client is told. The same code appears in the
logs, in the connection records, in the error that the database client prints and in the
documentation, so that one search finds everything about it.

The exceptions are few: one class per area, so that embedding programs can catch what they can act
on. They are raised where the cause is known and mapped once, at the border, with `raise … from`.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum, unique

__all__ = [
    "PROBLEMS",
    "ClientError",
    "Code",
    "ConfigError",
    "DBProxyError",
    "Fault",
    "IdentityError",
    "ListenError",
    "Problem",
    "Prospect",
    "UpstreamError",
    "UsageError",
]


@unique
class Fault(Enum):
    """Who can put it right."""

    CLIENT = "client"
    """The program that connects to our listener."""
    OPERATOR = "operator"
    """Whoever runs dbproxy and tbot on this host."""
    UPSTREAM = "upstream"
    """The Teleport Proxy, or the network on the way to it."""
    DBPROXY = "dbproxy"
    """This program."""


@unique
class Code(StrEnum):
    """The stable name of a problem: never renamed, never reused."""

    USAGE = "usage"
    CONFIG_MALFORMED = "config-malformed"
    CONFIG_UNREADABLE = "config-unreadable"
    DESTINATION_NOT_FOUND = "destination-not-found"
    DESTINATION_USED_TWICE = "destination-used-twice"

    FILE_UNUSABLE = "file-unusable"

    IDENTITY_MISSING = "identity-missing"
    IDENTITY_UNREADABLE = "identity-unreadable"
    IDENTITY_EXPOSED = "identity-exposed"
    IDENTITY_MALFORMED = "identity-malformed"
    KEY_MISMATCH = "key-mismatch"
    IDENTITY_MIXED = "identity-mixed"
    CERTIFICATE_WITHOUT_ROUTE = "certificate-without-route"
    SERVICE_MISMATCH = "service-mismatch"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_NOT_YET_VALID = "certificate-not-yet-valid"
    CLOCK_WRONG = "clock-wrong"
    IDENTITY_NOT_RENEWED = "identity-not-renewed"
    PROTOCOL_NOT_SUPPORTED = "protocol-not-supported"

    ADDRESS_IN_USE = "address-in-use"
    LISTEN_DENIED = "listen-denied"
    LISTEN_FAILED = "listen-failed"
    STATE_DIRECTORY_UNUSABLE = "state-directory-unusable"
    TOO_MANY_FILES = "too-many-files"

    COMMAND_NOT_FOUND = "command-not-found"
    COMMAND_UNUSABLE = "command-unusable"

    DISCOVERY_FAILED = "discovery-failed"
    OUTBOUND_PROXY_UNREACHABLE = "outbound-proxy-unreachable"
    OUTBOUND_PROXY_REFUSED = "outbound-proxy-refused"
    UPSTREAM_UNREACHABLE = "upstream-unreachable"
    UPSTREAM_UNTRUSTED = "upstream-untrusted"
    UPSTREAM_CHAIN_INCOMPLETE = "upstream-chain-incomplete"
    UPSTREAM_SELF_SIGNED = "upstream-self-signed"
    UPSTREAM_CERTIFICATE_EXPIRED = "upstream-certificate-expired"
    UPSTREAM_CERTIFICATE_NOT_YET_VALID = "upstream-certificate-not-yet-valid"
    UPSTREAM_NAME_MISMATCH = "upstream-name-mismatch"
    UPSTREAM_NAME_MISSING = "upstream-name-missing"
    UPSTREAM_CERTIFICATE_PURPOSE = "upstream-certificate-purpose"
    UPSTREAM_SIGNATURE_WEAK = "upstream-signature-weak"
    UPSTREAM_KEY_WEAK = "upstream-key-weak"
    UPSTREAM_PIN_MISMATCH = "upstream-pin-mismatch"
    UPSTREAM_TLS_TOO_OLD = "upstream-tls-too-old"
    UPSTREAM_NOT_TELEPORT = "upstream-not-teleport"
    UPSTREAM_TLS_FAILED = "upstream-tls-failed"
    UPSTREAM_CLOSED_EARLY = "upstream-closed-early"
    UPSTREAM_LOST = "upstream-lost"
    UPSTREAM_SILENT = "upstream-silent"
    UPSTREAM_PROTOCOL_ERROR = "upstream-protocol-error"
    ALPN_NOT_SUPPORTED = "alpn-not-supported"
    TLS_ROUTING_OFF = "tls-routing-off"
    UPGRADE_FAILED = "upgrade-failed"
    CERTIFICATE_REJECTED = "certificate-rejected"

    ACCESS_DENIED = "access-denied"
    SERVICE_NOT_FOUND = "service-not-found"
    CONNECTION_LIMIT = "connection-limit"
    DATABASE_UNTRUSTED = "database-untrusted"
    REFUSED_BY_TELEPORT = "refused-by-teleport"

    CLIENT_NOT_TLS = "client-not-tls"
    CLIENT_TLS_ON_TUNNEL = "client-tls-on-tunnel"
    CLIENT_TLS_FAILED = "client-tls-failed"
    CLIENT_CERTIFICATE_MISSING = "client-certificate-missing"
    CLIENT_CERTIFICATE_REJECTED = "client-certificate-rejected"
    CLIENT_CERTIFICATE_WRONG_SERVICE = "client-certificate-wrong-service"
    CLIENT_PROTOCOL_ERROR = "client-protocol-error"
    CLIENT_STALLED = "client-stalled"

    WORKER_LOST = "worker-lost"
    INTERNAL_ERROR = "internal-error"


@unique
class Prospect(Enum):
    """Whether trying again may help, while a client waits."""

    NONE = "none"
    """What is wrong stays wrong until somebody puts it right."""
    ONCE = "once"
    """It can have been an accident of the moment; a second time it is none."""
    SOON = "soon"
    """It may pass by itself: a restart, a lost packet, a name server that hesitates."""
    RENEWED = "renewed"
    """With a newer identity it may go well."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One row of the table.

    Attributes:
        fault: Who can put it right.
        meaning: What happened and why, in general.
        next_step: What the operator does next.
        client_hint: What the developer of the client does next; goes out in the database protocol.
        exit_status: The exit status when the command ends because of it.
        prospect: Whether trying again may help; an error can know better.
    """

    fault: Fault
    meaning: str
    next_step: str
    client_hint: str = "Ask whoever runs dbproxy on this host to look at its log."
    exit_status: int = 1
    prospect: Prospect = Prospect.NONE


_UNTRUSTED_HINT = (
    "dbproxy does not trust the server that it found in Teleport's place, and has sent it nothing;"
    " ask whoever runs dbproxy on this host."
)

PROBLEMS: dict[Code, Problem] = {
    Code.USAGE: Problem(
        Fault.OPERATOR,
        "An argument is missing, malformed or contradicts another one.",
        "See `dbproxy --help` and the help of the command.",
        exit_status=2,
    ),
    Code.CONFIG_MALFORMED: Problem(
        Fault.OPERATOR,
        "The tbot configuration file has a key that cannot be understood.",
        "Correct the named key; the message gives file, line and key.",
    ),
    Code.CONFIG_UNREADABLE: Problem(
        Fault.OPERATOR,
        "The tbot configuration file does not exist or may not be read.",
        "Name the right file with --config, or name the directory with --destination-dir.",
    ),
    Code.DESTINATION_NOT_FOUND: Problem(
        Fault.OPERATOR,
        "No destination in the tbot configuration fits, or more than one does.",
        "Name the directory that tbot writes to with --destination-dir.",
    ),
    Code.DESTINATION_USED_TWICE: Problem(
        Fault.OPERATOR,
        "Two outputs in the tbot configuration write into the same directory, over each other.",
        "Give each output in tbot.yaml a directory of its own, and restart tbot.",
    ),
    Code.FILE_UNUSABLE: Problem(
        Fault.OPERATOR,
        "A certificate or key file that was named does not exist, may not be read or is damaged.",
        "Check the file: its name, its permissions, and that it is PEM.",
    ),
    Code.IDENTITY_MISSING: Problem(
        Fault.OPERATOR,
        "The destination directory, or a file that tbot writes into it, does not exist.",
        "Check that tbot runs, and that this is where its database output goes.",
    ),
    Code.IDENTITY_UNREADABLE: Problem(
        Fault.OPERATOR,
        "A file of the destination may not be read by this user.",
        "Give this user read access: run `tbot init --reader-user`, or list it under `readers`.",
    ),
    Code.IDENTITY_EXPOSED: Problem(
        Fault.OPERATOR,
        "Every user of this host can read the private key in the destination.",
        "Take the right away from others (`chmod o-rwx` on the key and its directory), and let tbot"
        " grant access to whoever needs it: `tbot init --reader-user`, or `readers` in tbot.yaml.",
    ),
    Code.IDENTITY_MALFORMED: Problem(
        Fault.OPERATOR,
        "A file of the destination is empty, truncated or not what its name says.",
        "tbot may be writing it right now or may have been interrupted; check tbot's log, then"
        " restart tbot to have the files written again.",
    ),
    Code.KEY_MISMATCH: Problem(
        Fault.OPERATOR,
        "The private key does not belong to the certificate. tbot makes a new key at each renewal"
        " and writes one file after another, so this is normal only for a moment.",
        "If it stays, check tbot's log and restart tbot to have the files written again.",
    ),
    Code.IDENTITY_MIXED: Problem(
        Fault.OPERATOR,
        "Files of the destination are from different renewals. tbot writes one file after another,"
        " so this is normal only for a moment.",
        "If it stays, check tbot's log and restart tbot to have the files written again.",
    ),
    Code.CERTIFICATE_WITHOUT_ROUTE: Problem(
        Fault.OPERATOR,
        "The certificate names no database service: this tbot output has no database configured.",
        "Add the database (service, username, database) to this output in tbot.yaml and renew.",
    ),
    Code.SERVICE_MISMATCH: Problem(
        Fault.OPERATOR,
        "The certificate in the destination is for another database service than asked for.",
        "Start dbproxy with the service that the certificate names, or use the destination whose"
        " certificate is for this service.",
    ),
    Code.CERTIFICATE_EXPIRED: Problem(
        Fault.OPERATOR,
        "The certificate in the destination has expired: tbot has not renewed it in time.",
        "Check that tbot runs and renews (its log says why not). dbproxy uses the new certificate"
        " as soon as it is written; a restart is not needed.",
        "The certificate of dbproxy has expired; it recovers by itself once tbot renews it.",
    ),
    Code.CERTIFICATE_NOT_YET_VALID: Problem(
        Fault.OPERATOR,
        "The certificate in the destination is not valid yet: the clock of this host is behind.",
        "Check the clock of this host (`timedatectl`) and of the Teleport cluster.",
    ),
    Code.CLOCK_WRONG: Problem(
        Fault.OPERATOR,
        "Files in the destination were written in the future: the clock of this host, or of the"
        " machine that its file system comes from, is wrong.",
        "Check the clock of this host (`timedatectl`), and that it is synchronised.",
    ),
    Code.IDENTITY_NOT_RENEWED: Problem(
        Fault.OPERATOR,
        "The certificate is valid still, but tbot should have renewed it by now and has not. The"
        " warning comes again each time half of the remaining time has passed.",
        "Check that tbot runs and that its log shows renewals, before the certificate expires.",
    ),
    Code.PROTOCOL_NOT_SUPPORTED: Problem(
        Fault.OPERATOR,
        "The certificate names a database protocol that this version of dbproxy does not know.",
        "If it is one of the known protocols under another name, name that with --protocol;"
        " otherwise give --alpn with the value that Teleport knows it by, and its bytes are"
        " carried as they are.",
    ),
    Code.ADDRESS_IN_USE: Problem(
        Fault.OPERATOR,
        "Another process listens on the address already.",
        "Choose another --port, or leave it out for a free one.",
    ),
    Code.LISTEN_DENIED: Problem(
        Fault.OPERATOR,
        "The system does not allow this user to listen on the address.",
        "Choose a port above 1023, or a directory that this user may write to.",
    ),
    Code.LISTEN_FAILED: Problem(
        Fault.OPERATOR,
        "The system could not open the listener.",
        "Check the address given with --listen.",
    ),
    Code.STATE_DIRECTORY_UNUSABLE: Problem(
        Fault.OPERATOR,
        "The state directory, where dbproxy keeps its local certificate authority, cannot be used.",
        "Set STATE_DIRECTORY to a directory that this user may write to, or give --server-cert"
        " and --server-key.",
    ),
    Code.TOO_MANY_FILES: Problem(
        Fault.OPERATOR,
        "dbproxy, or the whole host, has run out of file descriptors or of memory for sockets. Each"
        " connection takes two descriptors: one to the client, one to the Teleport Proxy.",
        "Raise LimitNOFILE= in dbproxy's systemd unit, or `ulimit -n` in the shell that starts it,"
        " and check why so many connections are open.",
        "dbproxy has too many open connections; close some that you do not need, and try again.",
    ),
    Code.COMMAND_NOT_FOUND: Problem(
        Fault.OPERATOR,
        "There is no program of the name that `dbproxy run` or `dbproxy connect` is to start.",
        "Check the name and PATH, or give the program's whole path; with `dbproxy connect`, install"
        " the client.",
        exit_status=127,
    ),
    Code.COMMAND_UNUSABLE: Problem(
        Fault.OPERATOR,
        "The system does not execute what `dbproxy run` or `dbproxy connect` is to start.",
        "Check that it is a program for this machine, and that this user may execute it.",
        exit_status=126,
    ),
    Code.DISCOVERY_FAILED: Problem(
        Fault.OPERATOR,
        "The Teleport Proxy did not say how it wants to be reached. The address that was configured"
        " is used as it is, which often works.",
        "Check that the address (--proxy, or proxy_server in tbot.yaml) is the web address of a"
        " Teleport Proxy. If it cannot answer there and connections work, give --no-discovery.",
    ),
    Code.OUTBOUND_PROXY_UNREACHABLE: Problem(
        Fault.OPERATOR,
        "No connection could be made to the outbound proxy, through which the environment"
        " (HTTPS_PROXY, HTTP_PROXY or ALL_PROXY) leads to the Teleport Proxy.",
        "Check the variable that the message names, and that this host reaches the outbound proxy;"
        " or name the Teleport Proxy in NO_PROXY to connect directly.",
        "dbproxy cannot reach the network's outbound proxy right now; try again later.",
        prospect=Prospect.SOON,
    ),
    Code.OUTBOUND_PROXY_REFUSED: Problem(
        Fault.OPERATOR,
        "The outbound proxy, which the environment (HTTPS_PROXY, HTTP_PROXY or ALL_PROXY) names,"
        " answered, but gave no connection to the Teleport Proxy.",
        "Check that the outbound proxy allows connections to the Teleport Proxy and which"
        " credentials it wants; or name the Teleport Proxy in NO_PROXY to connect directly.",
    ),
    Code.UPSTREAM_UNREACHABLE: Problem(
        Fault.UPSTREAM,
        "No connection to the Teleport Proxy could be made.",
        "Check the address (--proxy, or proxy_server in tbot.yaml), the network and the Teleport"
        " Proxy itself.",
        "The Teleport Proxy cannot be reached from this host right now; try again later.",
        prospect=Prospect.SOON,
    ),
    Code.UPSTREAM_UNTRUSTED: Problem(
        Fault.OPERATOR,
        "The certificate that the Teleport Proxy showed was issued by an authority that is not"
        " trusted.",
        "If the Teleport Proxy uses a private authority, name its certificate with --proxy-ca.",
        _UNTRUSTED_HINT,
    ),
    Code.UPSTREAM_CHAIN_INCOMPLETE: Problem(
        Fault.UPSTREAM,
        "The Teleport Proxy showed its own certificate without the intermediate one that leads to"
        " an authority.",
        "Have the whole chain put into the Teleport Proxy's certificate file (`https_keypairs`);"
        " until then, name the intermediate certificate with --proxy-ca.",
        _UNTRUSTED_HINT,
    ),
    Code.UPSTREAM_SELF_SIGNED: Problem(
        Fault.OPERATOR,
        "The certificate that the Teleport Proxy showed is signed by itself, as that of a new"
        " installation is, and it is not among the trusted ones.",
        "Name that certificate with --proxy-ca, or have the Teleport Proxy given one by an"
        " authority.",
        _UNTRUSTED_HINT,
    ),
    Code.UPSTREAM_CERTIFICATE_EXPIRED: Problem(
        Fault.UPSTREAM,
        "The certificate that the Teleport Proxy showed, or one of its authorities', has expired.",
        "Have the Teleport Proxy's web certificate renewed; if it is valid, check the clock of this"
        " host (`timedatectl`).",
        _UNTRUSTED_HINT,
    ),
    Code.UPSTREAM_CERTIFICATE_NOT_YET_VALID: Problem(
        Fault.OPERATOR,
        "The certificate that the Teleport Proxy showed, or one of its authorities', is not valid"
        " yet: most likely the clock of this host is behind.",
        "Check the clock of this host (`timedatectl`), then the dates of the certificate.",
        _UNTRUSTED_HINT,
    ),
    Code.UPSTREAM_NAME_MISMATCH: Problem(
        Fault.OPERATOR,
        "The certificate that the Teleport Proxy showed is for another name.",
        "Use a name that the certificate is for in the address (--proxy, or proxy_server in"
        " tbot.yaml), or give that name with --server-name.",
        _UNTRUSTED_HINT,
    ),
    Code.UPSTREAM_NAME_MISSING: Problem(
        Fault.UPSTREAM,
        "The certificate that the Teleport Proxy showed has no subject alternative name. The common"
        " name alone does not count.",
        "Have the Teleport Proxy given a certificate whose subject alternative names include the"
        " name in its address.",
        _UNTRUSTED_HINT,
    ),
    Code.UPSTREAM_CERTIFICATE_PURPOSE: Problem(
        Fault.UPSTREAM,
        "The certificate that the Teleport Proxy showed is not meant for servers.",
        "Have the Teleport Proxy given a certificate whose extended key usage includes serverAuth.",
        _UNTRUSTED_HINT,
    ),
    Code.UPSTREAM_SIGNATURE_WEAK: Problem(
        Fault.UPSTREAM,
        "The certificate that the Teleport Proxy showed, or one of its authorities', is signed with"
        " a hash that can be forged, such as SHA-1.",
        "Have the certificate issued anew, signed with SHA-256 or better.",
        _UNTRUSTED_HINT,
    ),
    Code.UPSTREAM_KEY_WEAK: Problem(
        Fault.UPSTREAM,
        "The certificate that the Teleport Proxy showed, or one of its authorities', has a key that"
        " can be broken, such as RSA with 1024 bits.",
        "Have the certificate issued anew for a key of ECDSA P-256, RSA with 2048 bits or better.",
        _UNTRUSTED_HINT,
    ),
    Code.UPSTREAM_PIN_MISMATCH: Problem(
        Fault.OPERATOR,
        "The certificate that the Teleport Proxy showed has none of the public keys that were"
        " pinned with --proxy-pin.",
        "Find out why the key is another one before you trust it: whether it was replaced, or"
        " something on the way opens TLS. Then add the new pin.",
        _UNTRUSTED_HINT,
    ),
    Code.UPSTREAM_TLS_TOO_OLD: Problem(
        Fault.UPSTREAM,
        "The server speaks only versions of TLS before 1.2, which are not safe any more.",
        "Check that the address (--proxy, or proxy_server in tbot.yaml) is the web address of a"
        " Teleport Proxy, and whether something on the way ends TLS.",
    ),
    Code.UPSTREAM_NOT_TELEPORT: Problem(
        Fault.OPERATOR,
        "What answers at the address is another kind of server, not a Teleport Proxy.",
        "Check the address and the port (--proxy, or proxy_server in tbot.yaml): it must be the web"
        " address of the Teleport Proxy, usually with port 443 or 3080.",
        "dbproxy is set up with the address of something that is not Teleport; ask whoever runs"
        " dbproxy on this host.",
    ),
    Code.UPSTREAM_TLS_FAILED: Problem(
        Fault.UPSTREAM,
        "The TLS handshake with the Teleport Proxy failed.",
        "Check that the address (--proxy, or proxy_server in tbot.yaml) is the web address of a"
        " Teleport Proxy.",
    ),
    Code.UPSTREAM_CLOSED_EARLY: Problem(
        Fault.UPSTREAM,
        "The Teleport Proxy closed the connection before it sent a single byte. It does so without"
        " a word when a connection limit is reached, when the bot or its roles are locked, when IP"
        " pinning does not match, and when no database agent serves the service.",
        "Check the audit log of the Teleport cluster, locks on the bot, connection limits, and that"
        " a database agent serves this service.",
        "Teleport closed the connection without a reason: check locks, limits and the service.",
        prospect=Prospect.ONCE,
    ),
    Code.UPSTREAM_LOST: Problem(
        Fault.UPSTREAM,
        "The Teleport Proxy, or something on the way to it, broke off an open connection.",
        "Check whether the Teleport Proxy or a load balancer was restarted, and the network."
        " Teleport itself ends sessions that are idle for too long or whose certificate has"
        " expired, where the cluster is set up so.",
        "The connection to the database was lost on the way; connect again.",
    ),
    Code.UPSTREAM_SILENT: Problem(
        Fault.UPSTREAM,
        "Not a byte has come from the Teleport Proxy for three of its ping intervals, so it or"
        " something on the way to it is gone without a word.",
        "Check the network between this host and the Teleport Proxy, and whether a firewall or load"
        " balancer in between forgets connections.",
        "The connection to the database was lost on the way; connect again.",
    ),
    Code.UPSTREAM_PROTOCOL_ERROR: Problem(
        Fault.UPSTREAM,
        "The Teleport Proxy sent something that its protocol does not allow.",
        "Check that the address (--proxy, or proxy_server in tbot.yaml) is the web address of a"
        " Teleport Proxy.",
    ),
    Code.ALPN_NOT_SUPPORTED: Problem(
        Fault.UPSTREAM,
        "The Teleport Proxy does not know the ALPN protocol of this database, or a load balancer"
        " in front of it ends TLS itself and drops ALPN.",
        "Check that TLS routing is on in the cluster and that its version serves this database"
        " protocol; behind a layer 7 load balancer, try --connection-upgrade=always.",
        prospect=Prospect.ONCE,
    ),
    Code.TLS_ROUTING_OFF: Problem(
        Fault.UPSTREAM,
        "The cluster has TLS routing switched off, so the Teleport Proxy serves no databases on its"
        " web port, and it does not publish an address of its own for this database protocol.",
        "Switch TLS routing on in the cluster (`proxy_listener_mode: multiplex`), or let the"
        " Teleport Proxy listen for this database protocol; give --no-discovery if its answer is"
        " wrong.",
        "Teleport does not serve this kind of database in the way that dbproxy connects.",
    ),
    Code.UPGRADE_FAILED: Problem(
        Fault.UPSTREAM,
        "The connection upgrade failed, by which database connections pass a layer 7 load balancer"
        " in front of the Teleport Proxy.",
        "Check that the load balancer lets WebSocket connections through, and that the version of"
        " the Teleport Proxy has connection upgrades; --connection-upgrade=never does without.",
    ),
    Code.CERTIFICATE_REJECTED: Problem(
        Fault.OPERATOR,
        "The Teleport Proxy rejected the client certificate from the destination.",
        "Check that the destination belongs to this cluster, that tbot renews it, and whether the"
        " cluster's certificate authority was rotated.",
        "Teleport rejected the certificate of dbproxy; ask whoever runs dbproxy on this host.",
        prospect=Prospect.RENEWED,
    ),
    Code.ACCESS_DENIED: Problem(
        Fault.OPERATOR,
        "Teleport does not let this database user connect to this database: the roles of the bot do"
        " not allow it.",
        "Compare the database user and name with `db_users` and `db_names` in the bot's roles, and"
        " the labels of the database with `db_labels`.",
        "Check the database user and name; if they are right, ask for a Teleport role that allows"
        " them.",
    ),
    Code.SERVICE_NOT_FOUND: Problem(
        Fault.OPERATOR,
        "Teleport knows no database service of the name that is in the certificate.",
        "Check that the service in tbot.yaml is one of `tctl db ls`, and that the database agent"
        " that serves it is running.",
        "Ask whoever runs dbproxy on this host whether this database is registered in Teleport.",
    ),
    Code.CONNECTION_LIMIT: Problem(
        Fault.UPSTREAM,
        "Teleport takes no more connections from this address for now.",
        "Check how many connections are open through this dbproxy, and `connection_limits` of the"
        " Teleport Proxy.",
        "Close connections that you do not need, or make the connection pool smaller; then try"
        " again.",
    ),
    Code.DATABASE_UNTRUSTED: Problem(
        Fault.UPSTREAM,
        "The database and Teleport's database agent do not accept each other's certificates. Those"
        " of tbot and of dbproxy have nothing to do with it.",
        "Have the database's certificate renewed, or the authority that the agent trusts for it"
        " corrected (`tls` in the agent's configuration).",
        "Tell whoever runs Teleport's database agent; your own certificate is not the cause.",
    ),
    Code.REFUSED_BY_TELEPORT: Problem(
        Fault.UPSTREAM,
        "Teleport refused the session, for a reason of its own that its message tells.",
        "Read the message that the client got, then the audit log of the Teleport cluster and the"
        " log of the database agent.",
        "The message is Teleport's; show it to whoever runs Teleport.",
    ),
    Code.CLIENT_NOT_TLS: Problem(
        Fault.CLIENT,
        "The client spoke plaintext to a port that requires TLS.",
        "Switch on TLS in the client and give it the certificate files of the destination, or start"
        " dbproxy with --tunnel.",
        "Switch on TLS in the client (PostgreSQL: sslmode=verify-full) and give it the tbot"
        " certificate files, or ask for a --tunnel port.",
    ),
    Code.CLIENT_TLS_ON_TUNNEL: Problem(
        Fault.CLIENT,
        "The client spoke TLS to a port in tunnel mode, which takes plaintext.",
        "Switch off TLS in the client, or start dbproxy without --tunnel.",
        "Switch off TLS in the client (PostgreSQL: sslmode=disable): dbproxy adds TLS itself.",
    ),
    Code.CLIENT_TLS_FAILED: Problem(
        Fault.CLIENT,
        "The TLS handshake with the client failed.",
        "Check which certificate authority the client trusts: it needs the dbproxy-ca.crt that"
        " dbproxy names at start, and the host name `localhost`.",
    ),
    Code.CLIENT_CERTIFICATE_MISSING: Problem(
        Fault.CLIENT,
        "The client showed no certificate, and this port is for holders of the tbot certificate.",
        "Give the client the certificate and key files that dbproxy names at start.",
        "Give the client the tlscert and key files of the tbot destination (PostgreSQL: sslcert and"
        " sslkey).",
    ),
    Code.CLIENT_CERTIFICATE_REJECTED: Problem(
        Fault.CLIENT,
        "The client's certificate was not issued by this cluster's User CA, or is not valid now.",
        "Give the client the certificate and key files that dbproxy names at start.",
        "Give the client the tlscert and key files of the tbot destination (PostgreSQL: sslcert and"
        " sslkey).",
    ),
    Code.CLIENT_CERTIFICATE_WRONG_SERVICE: Problem(
        Fault.CLIENT,
        "The client's certificate is for another database service than this port.",
        "Give the client the certificate of the destination that this dbproxy uses.",
        "Use the certificate files of the tbot destination for this service.",
    ),
    Code.CLIENT_PROTOCOL_ERROR: Problem(
        Fault.CLIENT,
        "The client's first bytes are not the database protocol of this port.",
        "Check which port the client connects to, and which protocol it speaks.",
        "Check the port: it carries another protocol than the client speaks.",
    ),
    Code.CLIENT_STALLED: Problem(
        Fault.CLIENT,
        "The client connected and then did not finish its first message in time.",
        "If the client is just slow, raise --prologue-timeout.",
        "The first message must arrive sooner; is something holding the connection up?",
    ),
    Code.WORKER_LOST: Problem(
        Fault.DBPROXY,
        "With --workers: one of the processes that serve the port has ended without having been"
        " asked to, or could not be started. Its connections are lost; those of the others go on.",
        "Nothing, if somebody has killed it. See whether the system was short of memory (`dmesg`)"
        " or of processes; if neither, please report it, with the log and `dbproxy --version`.",
    ),
    Code.INTERNAL_ERROR: Problem(
        Fault.DBPROXY,
        "dbproxy has a bug.",
        "Please report it, with the log and `dbproxy --version`.",
    ),
}


class DBProxyError(Exception):
    """The base of all errors that dbproxy raises for a cause outside itself.

    Args:
        code: The stable code; its row in `PROBLEMS` supplies fault and hints.
        message: What happened, to what, and why: one sentence without a full stop.
        next_step: The operator's next step, where the case knows better than the table.
    """

    def __init__(self, code: Code, message: str, *, next_step: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.next_step = next_step if next_step is not None else PROBLEMS[code].next_step

    @property
    def problem(self) -> Problem:
        """The row of the table that this error belongs to."""
        return PROBLEMS[self.code]


class UsageError(DBProxyError):
    """The settings are incomplete or contradict each other."""

    def __init__(self, message: str, *, next_step: str | None = None) -> None:
        super().__init__(Code.USAGE, message, next_step=next_step)


class ConfigError(DBProxyError):
    """The tbot configuration, or a file named in the settings, cannot be used."""


class IdentityError(DBProxyError):
    """The identity in the destination cannot be used."""


class ListenError(DBProxyError):
    """The local listener, or what it needs, could not be set up."""


class UpstreamError(DBProxyError):
    """The Teleport Proxy could not be reached, was not trusted, or turned us away.

    Args:
        prospect: Whether trying again may help, where the case knows better than the table.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        next_step: str | None = None,
        prospect: Prospect | None = None,
    ) -> None:
        super().__init__(code, message, next_step=next_step)
        self.prospect = prospect if prospect is not None else self.problem.prospect


class ClientError(DBProxyError):
    """The client at our listener did something that this port does not serve."""
