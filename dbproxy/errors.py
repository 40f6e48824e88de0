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

    OUTBOUND_PROXY_UNREACHABLE = "outbound-proxy-unreachable"
    OUTBOUND_PROXY_REFUSED = "outbound-proxy-refused"
    UPSTREAM_UNREACHABLE = "upstream-unreachable"
    UPSTREAM_UNTRUSTED = "upstream-untrusted"
    UPSTREAM_TLS_FAILED = "upstream-tls-failed"
    UPSTREAM_CLOSED_EARLY = "upstream-closed-early"
    UPSTREAM_LOST = "upstream-lost"
    UPSTREAM_PROTOCOL_ERROR = "upstream-protocol-error"
    ALPN_NOT_SUPPORTED = "alpn-not-supported"
    UPGRADE_FAILED = "upgrade-failed"
    CERTIFICATE_REJECTED = "certificate-rejected"

    CLIENT_NOT_TLS = "client-not-tls"
    CLIENT_TLS_ON_TUNNEL = "client-tls-on-tunnel"
    CLIENT_TLS_FAILED = "client-tls-failed"
    CLIENT_CERTIFICATE_MISSING = "client-certificate-missing"
    CLIENT_CERTIFICATE_REJECTED = "client-certificate-rejected"
    CLIENT_CERTIFICATE_WRONG_SERVICE = "client-certificate-wrong-service"
    CLIENT_PROTOCOL_ERROR = "client-protocol-error"
    CLIENT_STALLED = "client-stalled"

    INTERNAL_ERROR = "internal-error"


@dataclass(frozen=True, slots=True)
class Problem:
    """One row of the table.

    Attributes:
        fault: Who can put it right.
        meaning: What happened and why, in general.
        next_step: What the operator does next.
        client_hint: What the developer of the client does next; goes out in the database protocol.
        exit_status: The exit status when the command ends because of it.
    """

    fault: Fault
    meaning: str
    next_step: str
    client_hint: str = "Ask whoever runs dbproxy on this host to look at its log."
    exit_status: int = 1


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
        "The certificate names a database protocol that this version of dbproxy does not carry.",
        "Use a destination for one of the supported protocols, or a newer dbproxy.",
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
    Code.OUTBOUND_PROXY_UNREACHABLE: Problem(
        Fault.OPERATOR,
        "No connection could be made to the outbound proxy, through which the environment"
        " (HTTPS_PROXY, HTTP_PROXY or ALL_PROXY) leads to the Teleport Proxy.",
        "Check the variable that the message names, and that this host reaches the outbound proxy;"
        " or name the Teleport Proxy in NO_PROXY to connect directly.",
        "dbproxy cannot reach the network's outbound proxy right now; try again later.",
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
    ),
    Code.UPSTREAM_UNTRUSTED: Problem(
        Fault.OPERATOR,
        "The certificate that the Teleport Proxy showed is not trusted or is for another name.",
        "If the Teleport Proxy uses a private authority, name its certificate with --proxy-ca; if"
        " the name is wrong, check the address (--proxy, or proxy_server in tbot.yaml).",
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
    ),
    Code.UPSTREAM_LOST: Problem(
        Fault.UPSTREAM,
        "The Teleport Proxy, or something on the way to it, broke off an open connection.",
        "Check whether the Teleport Proxy or a load balancer was restarted, and the network."
        " Teleport itself ends sessions that are idle for too long or whose certificate has"
        " expired, where the cluster is set up so.",
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
        "Check that TLS routing is on in the cluster, that its version serves this database"
        " protocol, and that no layer 7 load balancer stands between.",
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
    ),
    Code.CLIENT_NOT_TLS: Problem(
        Fault.CLIENT,
        "The client spoke plaintext to a port that requires TLS.",
        "Switch on TLS in the client and give it the certificate files of the destination, or start"
        " dbproxy with --tunnel.",
        "Connect with sslmode=verify-full and the tbot certificate files, or ask for a --tunnel"
        " port.",
    ),
    Code.CLIENT_TLS_ON_TUNNEL: Problem(
        Fault.CLIENT,
        "The client spoke TLS to a port in tunnel mode, which takes plaintext.",
        "Switch off TLS in the client, or start dbproxy without --tunnel.",
        "Connect with sslmode=disable: dbproxy adds TLS itself.",
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
        "Set sslcert and sslkey to the tlscert and key files of the tbot destination.",
    ),
    Code.CLIENT_CERTIFICATE_REJECTED: Problem(
        Fault.CLIENT,
        "The client's certificate was not issued by this cluster's User CA, or is not valid now.",
        "Give the client the certificate and key files that dbproxy names at start.",
        "Set sslcert and sslkey to the tlscert and key files of the tbot destination.",
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
    """The Teleport Proxy could not be reached, was not trusted, or turned us away."""


class ClientError(DBProxyError):
    """The client at our listener did something that this port does not serve."""
