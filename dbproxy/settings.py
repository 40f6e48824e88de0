"""Every option, once.

A field of `Settings` declares an option's name, type, default, unit, flags and help. The command
line, the environment variables (`DBPROXY_` and the field's name in capitals) and the reference in
the documentation are derived from it; embedding programs fill in the class itself.

Precedence: flags beat the environment, the environment beats tbot's configuration file.
"""

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from enum import Enum, StrEnum, unique
from pathlib import Path
from typing import Any, Final

from dbproxy.errors import UsageError

__all__ = [
    "MOST_PREWARMED",
    "MOST_WORKERS",
    "Kind",
    "Mode",
    "Option",
    "Scope",
    "Settings",
    "option_of",
    "options",
]

SECONDS: Final = 1.0

MOST_WORKERS: Final = 256
"""More than that is a slip of the finger: each takes tens of megabytes."""
MOST_PREWARMED: Final = 1000
"""More than that is one too: the Teleport Proxy has a handshake for each, every few seconds."""


@unique
class Mode(StrEnum):
    """How the client is authenticated and where its TLS ends."""

    PASSTHROUGH = "passthrough"
    """The client's TLS ends at Teleport; the client itself holds the tbot certificate."""
    TERMINATE = "terminate"
    """The client's TLS ends here; its certificate is checked here."""
    TUNNEL = "tunnel"
    """The client speaks plaintext; dbproxy presents the certificate."""


@unique
class Scope(Enum):
    """Where an option may be given."""

    GLOBAL = "global"
    """Before the command and after it."""
    SERVE = "serve"
    """After whatever opens ports."""
    DB = "db"
    """After whatever is about one port: `dbproxy db`, `run`, `connect` and `env`."""
    WORKERS = "workers"
    """After what may be several processes: `dbproxy db`."""
    MESSAGE = "message"
    """After what writes a start message: `dbproxy db` and `dbproxy start`."""
    RUN = "run"
    """After `dbproxy run` and after `dbproxy connect`."""
    ENV = "env"
    """After `dbproxy env`."""
    DOCTOR = "doctor"
    """After `dbproxy doctor`."""
    ARGUMENT = "argument"
    """As the positional argument of commands about one service."""


@unique
class Kind(Enum):
    """How an option's text is read."""

    FLAG = "flag"
    TEXT = "text"
    TEXTS = "texts"
    """Repeatable; separated by commas in the environment."""
    PATH = "path"
    PORT = "port"
    COUNT = "count"
    DURATION = "duration"
    """Seconds as a number, or with units: `500ms`, `10s`, `1m30s`, `1h`."""
    CHOICE = "choice"
    PROCESSES = "processes"
    """A number, or `auto` for as many as this process may use CPUs."""


@dataclass(frozen=True, slots=True)
class Option:
    """What the command line and the documentation need to know about a field of `Settings`.

    Attributes:
        flags: As typed on the command line; empty for the positional argument.
        help: One or two sentences.
        kind: How its text is read.
        scope: Where it may be given.
        metavar: The placeholder in the help.
        choices: The words allowed, for `Kind.CHOICE`.
        more_env: Environment variables looked at after the `DBPROXY_` one.
    """

    flags: tuple[str, ...]
    help: str
    kind: Kind
    scope: Scope
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    more_env: tuple[str, ...] = ()


_METADATA_KEY: Final = "dbproxy.option"


def _option(
    *flags: str,
    help: str,  # noqa: A002 - the word that everybody looks for
    kind: Kind = Kind.TEXT,
    scope: Scope = Scope.DB,
    metavar: str | None = None,
    choices: tuple[str, ...] = (),
    more_env: tuple[str, ...] = (),
) -> dict[str, Option]:
    return {_METADATA_KEY: Option(flags, help, kind, scope, metavar, choices, more_env)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to carry, from where to where, and how.

    Raises:
        UsageError: Two settings contradict each other, or a value makes no sense.
    """

    config: Path | None = field(
        default=None,
        metadata=_option(
            "-c",
            "--config",
            help="tbot's configuration file; says where the certificates are and which Teleport"
            " Proxy to use. Default: /etc/tbot.yaml when it exists.",
            kind=Kind.PATH,
            scope=Scope.GLOBAL,
            metavar="FILE",
            more_env=("TBOT_CONFIG_PATH",),
        ),
    )
    destination_dir: Path | None = field(
        default=None,
        metadata=_option(
            "--destination-dir",
            help="The directory that tbot writes the certificates to.",
            kind=Kind.PATH,
            scope=Scope.GLOBAL,
            metavar="DIR",
        ),
    )
    identity_file: Path | None = field(
        default=None,
        metadata=_option(
            "--identity",
            help="A combined identity file to use instead of a directory.",
            kind=Kind.PATH,
            scope=Scope.GLOBAL,
            metavar="FILE",
        ),
    )
    cert: Path | None = field(
        default=None,
        metadata=_option(
            "--cert",
            help="A client certificate in PEM to use instead of a directory, with --key and --ca.",
            kind=Kind.PATH,
            scope=Scope.GLOBAL,
            metavar="FILE",
        ),
    )
    key: Path | None = field(
        default=None,
        metadata=_option(
            "--key",
            help="With --cert: its private key in PEM; may be the same file.",
            kind=Kind.PATH,
            scope=Scope.GLOBAL,
            metavar="FILE",
        ),
    )
    ca: Path | None = field(
        default=None,
        metadata=_option(
            "--ca",
            help="With --cert: the certificates of Teleport's Host CA in PEM.",
            kind=Kind.PATH,
            scope=Scope.GLOBAL,
            metavar="FILE",
        ),
    )
    wait_for_identity: float = field(
        default=0 * SECONDS,
        metadata=_option(
            "--wait-for-identity",
            help="How long to wait at start for tbot to write a usable identity; the directory need"
            " not exist yet.",
            kind=Kind.DURATION,
            scope=Scope.GLOBAL,
            metavar="DURATION",
        ),
    )
    proxy: str | None = field(
        default=None,
        metadata=_option(
            "--proxy",
            help="The web address of the Teleport Proxy. Without a port, 443 and 3080 are tried.",
            scope=Scope.GLOBAL,
            metavar="HOST[:PORT]",
        ),
    )
    no_discovery: bool = field(
        default=False,
        metadata=_option(
            "--no-discovery",
            help="Use the address of the Teleport Proxy as it was given (port 443 unless given),"
            " instead of asking there for its public address.",
            kind=Kind.FLAG,
            scope=Scope.GLOBAL,
            more_env=("TBOT_USE_PROXY_ADDR",),
        ),
    )
    proxy_ca: Path | None = field(
        default=None,
        metadata=_option(
            "--proxy-ca",
            help="Certificates of more authorities to trust for the Teleport Proxy, in PEM."
            " SSL_CERT_FILE and SSL_CERT_DIR are honoured too.",
            kind=Kind.PATH,
            scope=Scope.GLOBAL,
            metavar="FILE",
        ),
    )
    proxy_pin: tuple[str, ...] = field(
        default=(),
        metadata=_option(
            "--proxy-pin",
            help="The SHA-256 of a public key (SubjectPublicKeyInfo) that the Teleport Proxy's"
            " certificate, or one of its authorities', must have, in hexadecimal or base64. Given"
            " several times, any one must match. Checked in addition to everything else; with"
            " --insecure it is all that is checked, and must be the certificate's own.",
            kind=Kind.TEXTS,
            scope=Scope.GLOBAL,
            metavar="sha256:DIGEST",
        ),
    )
    server_name: str | None = field(
        default=None,
        metadata=_option(
            "--server-name",
            help="The name that the Teleport Proxy's certificate is for, and that it is asked for"
            " (SNI), when it is not the one in the address.",
            scope=Scope.GLOBAL,
            metavar="NAME",
        ),
    )
    insecure: bool = field(
        default=False,
        metadata=_option(
            "--insecure",
            help="Do not verify the Teleport Proxy's certificate, in any layer. Anyone on the"
            " network path can then pose as the database.",
            kind=Kind.FLAG,
            scope=Scope.GLOBAL,
        ),
    )
    connection_upgrade: str = field(
        default="auto",
        metadata=_option(
            "--connection-upgrade",
            help="Whether to pass a layer 7 load balancer by an HTTP connection upgrade. auto: as"
            " TELEPORT_TLS_ROUTING_CONN_UPGRADE says, and without it, as a test finds.",
            kind=Kind.CHOICE,
            scope=Scope.GLOBAL,
            choices=("auto", "always", "never"),
        ),
    )
    debug: bool = field(
        default=False,
        metadata=_option(
            "-d",
            "--debug",
            help="Log every step.",
            kind=Kind.FLAG,
            scope=Scope.GLOBAL,
        ),
    )
    log_format: str = field(
        default="console",
        metadata=_option(
            "--log-format",
            help="How the log on standard error looks.",
            kind=Kind.CHOICE,
            scope=Scope.GLOBAL,
            choices=("console", "json"),
        ),
    )
    service: str | None = field(
        default=None,
        metadata=_option(
            help="The Teleport database service. May be left out when the certificate names one.",
            scope=Scope.ARGUMENT,
            metavar="[SERVICE]",
        ),
    )
    port: int = field(
        default=0,
        metadata=_option(
            "-p",
            "--port",
            help="The local port on 127.0.0.1; 0 takes a free one.",
            kind=Kind.PORT,
            metavar="PORT",
        ),
    )
    listen: str | None = field(
        default=None,
        metadata=_option(
            "--listen",
            help="Where to listen instead of 127.0.0.1: a loopback address or a Unix socket.",
            metavar="tcp://HOST:PORT|unix:///PATH",
        ),
    )
    unsafe_listen_anywhere: bool = field(
        default=False,
        metadata=_option(
            "--unsafe-listen-anywhere",
            help="Allow --listen on an address that other hosts can reach.",
            kind=Kind.FLAG,
            scope=Scope.SERVE,
        ),
    )
    tunnel: bool = field(
        default=False,
        metadata=_option(
            "--tunnel",
            help="Take plaintext clients; dbproxy presents the certificate. Every local user can"
            " then use the port.",
            kind=Kind.FLAG,
        ),
    )
    terminate: bool = field(
        default=False,
        metadata=_option(
            "--terminate",
            help="End the client's TLS here and check its certificate here.",
            kind=Kind.FLAG,
        ),
    )
    server_cert: Path | None = field(
        default=None,
        metadata=_option(
            "--server-cert",
            help="With --terminate: the certificate shown to clients, with its chain, in PEM."
            " Default: one from a local authority that dbproxy makes.",
            kind=Kind.PATH,
            metavar="FILE",
        ),
    )
    server_key: Path | None = field(
        default=None,
        metadata=_option(
            "--server-key",
            help="With --server-cert: its private key, in PEM.",
            kind=Kind.PATH,
            metavar="FILE",
        ),
    )
    protocol: str | None = field(
        default=None,
        metadata=_option(
            "--protocol",
            help="The database protocol, as Teleport names it; default: the certificate's. One that"
            " dbproxy does not know needs --alpn.",
            metavar="NAME",
        ),
    )
    alpn: str | None = field(
        default=None,
        metadata=_option(
            "--alpn",
            help="The ALPN value that Teleport knows the protocol by, instead of the usual one; its"
            " variant with pings is offered too. The bytes of a protocol that dbproxy does not know"
            " are carried as they are.",
            metavar="VALUE",
        ),
    )
    db_user: str | None = field(
        default=None,
        metadata=_option(
            "-u",
            "--db-user",
            help="The database user in the connection examples; default: the certificate's.",
            metavar="USER",
        ),
    )
    db_name: str | None = field(
        default=None,
        metadata=_option(
            "-n",
            "--db-name",
            help="The database name in the connection examples; default: the certificate's.",
            metavar="NAME",
        ),
    )
    mysql_version: str | None = field(
        default=None,
        metadata=_option(
            "--mysql-version",
            help="In passthrough: the server version that MySQL clients are told by Teleport's"
            " greeting; default: Teleport's choice.",
            metavar="VERSION",
        ),
    )
    no_rewrite: bool = field(
        default=False,
        metadata=_option(
            "--no-rewrite",
            help="With --terminate and --tunnel: pass Teleport's own errors on as they come; add"
            " neither the severity and SQLSTATE that they lack nor a hint.",
            kind=Kind.FLAG,
            scope=Scope.SERVE,
        ),
    )
    workers: int = field(
        default=1,
        metadata=_option(
            "--workers",
            help="How many processes serve the port, so that it can use more than one core; auto:"
            " as many as this process may use CPUs. What limits a process, such as"
            " --max-handshakes, holds for each of them.",
            kind=Kind.PROCESSES,
            scope=Scope.WORKERS,
            metavar="N|auto",
        ),
    )
    format: str = field(
        default="text",
        metadata=_option(
            "--format",
            help="How the start message on standard output looks.",
            kind=Kind.CHOICE,
            scope=Scope.MESSAGE,
            choices=("text", "json"),
        ),
    )
    env_format: str = field(
        default="shell",
        metadata=_option(
            "--format",
            help="shell: lines to eval in a shell. dotenv: lines of a .env file. json: everything"
            " by name. dsn: nothing but the URI of one driver.",
            kind=Kind.CHOICE,
            scope=Scope.ENV,
            choices=("shell", "dotenv", "json", "dsn"),
        ),
    )
    driver: str | None = field(
        default=None,
        metadata=_option(
            "--driver",
            help="With --format=dsn: the driver that the URI is for, such as psycopg, sqlalchemy,"
            " jdbc, pgx or mongo; default: the usual one of the protocol.",
            scope=Scope.ENV,
            metavar="NAME",
        ),
    )
    ready_timeout: float = field(
        default=30 * SECONDS,
        metadata=_option(
            "--ready-timeout",
            help="How long to wait for a first connection to the Teleport Proxy to work before the"
            " command is started; attempts are repeated until then, where that may help. 0: one"
            " attempt.",
            kind=Kind.DURATION,
            scope=Scope.RUN,
            metavar="DURATION",
        ),
    )
    offline: bool = field(
        default=False,
        metadata=_option(
            "--offline",
            help="Check only what is on this host, and open no connection.",
            kind=Kind.FLAG,
            scope=Scope.DOCTOR,
        ),
    )
    connect_timeout: float = field(
        default=10 * SECONDS,
        metadata=_option(
            "--connect-timeout",
            help="How long a TCP connection to the Teleport Proxy may take.",
            kind=Kind.DURATION,
            scope=Scope.SERVE,
            metavar="DURATION",
        ),
    )
    handshake_timeout: float = field(
        default=10 * SECONDS,
        metadata=_option(
            "--handshake-timeout",
            help="How long the TLS handshake with the Teleport Proxy may take.",
            kind=Kind.DURATION,
            scope=Scope.SERVE,
            metavar="DURATION",
        ),
    )
    connect_grace: float = field(
        default=5 * SECONDS,
        metadata=_option(
            "--connect-grace",
            help="How long a client is kept waiting while the Teleport Proxy cannot be reached or"
            " wants a newer certificate; attempts are repeated until then. 0: one attempt.",
            kind=Kind.DURATION,
            scope=Scope.SERVE,
            metavar="DURATION",
        ),
    )
    max_handshakes: int = field(
        default=64,
        metadata=_option(
            "--max-handshakes",
            help="How many connections to the Teleport Proxy may be set up at the same time; the"
            " others wait their turn.",
            kind=Kind.COUNT,
            scope=Scope.SERVE,
            metavar="N",
        ),
    )
    prewarm: int = field(
        default=0,
        metadata=_option(
            "--prewarm",
            help="How many connections to the Teleport Proxy to have ready, so that new clients"
            " need not wait for one: while clients come, and for a minute after the last. Only for"
            " protocols whose session begins with the client's first message: PostgreSQL,"
            " CockroachDB and SQL Server.",
            kind=Kind.COUNT,
            scope=Scope.SERVE,
            metavar="N",
        ),
    )
    prologue_timeout: float = field(
        default=10 * SECONDS,
        metadata=_option(
            "--prologue-timeout",
            help="How long a client may take to connect, start TLS and send its first message.",
            kind=Kind.DURATION,
            scope=Scope.SERVE,
            metavar="DURATION",
        ),
    )
    drain_timeout: float = field(
        default=10 * SECONDS,
        metadata=_option(
            "--drain-timeout",
            help="How long open connections may go on after the signal to stop.",
            kind=Kind.DURATION,
            scope=Scope.SERVE,
            metavar="DURATION",
        ),
    )

    def __post_init__(self) -> None:
        self._check_identity_options()
        if self.tunnel and self.terminate:
            raise UsageError("--tunnel and --terminate contradict each other: give one of them")
        if self.port and self.listen is not None:
            raise UsageError("--port and --listen contradict each other: give one of them")
        if (self.server_cert is None) != (self.server_key is None):
            raise UsageError("--server-cert and --server-key go together: give both or none")
        if self.mysql_version is not None and self.mode is not Mode.PASSTHROUGH:
            raise UsageError(
                "--mysql-version is for passthrough: in other modes the Teleport Proxy takes the"
                " version from the database's resource"
            )
        if self.server_cert is not None and not self.terminate:
            raise UsageError("--server-cert is for --terminate: other modes show no certificate")
        if self.protocol is not None and not self.protocol:
            raise UsageError("--protocol must not be empty")
        if self.alpn is not None and not _is_alpn(self.alpn):
            raise UsageError("--alpn must have 1 to 255 printable ASCII characters, and no spaces")
        if not 0 <= self.port <= 65535:
            raise UsageError(f"--port {self.port} is not a port: give 0 to 65535")
        for name in ("connect_timeout", "handshake_timeout", "prologue_timeout"):
            if getattr(self, name) <= 0:
                raise UsageError(f"--{name.replace('_', '-')} must be more than 0 seconds")
        if self.driver is not None and self.env_format != "dsn":
            raise UsageError("--driver is for --format=dsn: the other formats name every driver")
        if self.max_handshakes < 1:
            raise UsageError("--max-handshakes must be at least 1")
        if not 1 <= self.workers <= MOST_WORKERS:
            raise UsageError(f"--workers must be 1 to {MOST_WORKERS}")
        if not 0 <= self.prewarm <= MOST_PREWARMED:
            raise UsageError(f"--prewarm must be 0 to {MOST_PREWARMED}")
        for name in ("connect_grace", "drain_timeout", "ready_timeout", "wait_for_identity"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name.replace('_', '-')} must not be negative")

    def _check_identity_options(self) -> None:
        files = (self.cert, self.key, self.ca)
        named = {
            "--destination-dir": self.destination_dir is not None,
            "--identity": self.identity_file is not None,
            "--cert": any(path is not None for path in files),
        }
        given = [flag for flag, is_given in named.items() if is_given]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} contradict each other: give one of them")
        if named["--cert"] and None in files:
            raise UsageError("--cert, --key and --ca go together: give all three or none")

    @property
    def names_identity(self) -> bool:
        """Whether the settings themselves say where the identity is, without a configuration."""
        return (self.destination_dir, self.identity_file, self.cert) != (None, None, None)

    @property
    def mode(self) -> Mode:
        """How the client is authenticated."""
        if self.tunnel:
            return Mode.TUNNEL
        return Mode.TERMINATE if self.terminate else Mode.PASSTHROUGH


def _is_alpn(value: str) -> bool:
    """Whether it can be an ALPN value (RFC 7301); more than what is printable is not in use."""
    printable = value.isascii() and value.isprintable() and " " not in value
    return printable and 1 <= len(value) <= 255


def option_of(setting: Field[Any]) -> Option:
    """The declaration behind a field of `Settings`."""
    option = setting.metadata[_METADATA_KEY]
    assert isinstance(option, Option)  # noqa: S101
    return option


def options(*scopes: Scope) -> Iterator[tuple[str, Option, Any]]:
    """Each option of the scopes: the field's name, its declaration and its default."""
    for setting in fields(Settings):
        option = option_of(setting)
        if option.scope in scopes:
            yield setting.name, option, setting.default


def environment_names(name: str) -> tuple[str, ...]:
    """The environment variables of the option `name`, the strongest first."""
    more = next(option.more_env for field_name, option, _ in options(*Scope) if field_name == name)
    return (f"DBPROXY_{name.upper()}", *more)
