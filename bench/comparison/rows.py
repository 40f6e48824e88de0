"""The rows: dbproxy in its modes, its peers, and how each of them is started.

All get the same certificate and the same upstream. Only dbproxy and our Go peer know Teleport's
ping framing; the others carry the bytes in plain TLS, which is less work. stunnel and nginx cannot
send an ALPN value, so the upstream takes them without one.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comparison.certificates import Files
from comparison.processes import Running, clean_environment
from comparison.programs import Programs

DBPROXY: Final = os.environ.get("DBPROXY_COMMAND") or str(Path(sys.executable).with_name("dbproxy"))
PING_ALPN: Final = "teleport-postgres-ping,teleport-postgres"
PLAIN_ALPN: Final = "teleport-postgres"
MAX_CONNECTIONS: Final = 6000
NGINX_STREAM: Final = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


@dataclass(frozen=True)
class Site:
    """What a row is started with.

    Attributes:
        directory: For its files; empty, its own.
        port: The local port to take.
        upstream: Address of the upstream.
        files: The certificates.
        programs: Our own programs.
    """

    directory: Path
    port: int
    upstream: str
    files: Files
    programs: Programs


Command = Callable[[Site], Sequence[str | Path]]
"""Writes the configuration, if there is one, and returns the command line."""
LoadOptions = Callable[[Site, "Running | None"], Sequence[str | Path]]
"""How the load generator connects, apart from the address."""


def plaintext(site: Site, proxy: Running | None) -> Sequence[str | Path]:
    """As an application connects to a tunnel."""
    del site, proxy
    return ()


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        name: Short, for options and files.
        title: For people.
        command: How it is started; None: there is no proxy.
        load: How the load generator connects.
        ping: Whether the upstream offers ping framing to it.
        peer: Whether it is one of those that dbproxy is judged against.
        judged: Whether a bar depends on it; the others take part in every other round.
        needs: The program it needs, and the Debian package that has it.
        flags: Options of `dbproxy db` that it needs.
        only: Beginnings of the names of the runs that it takes part in; empty: all.
        never: Beginnings of the names of runs that would say nothing about it.
    """

    name: str
    title: str
    command: Command | None
    load: LoadOptions = plaintext
    ping: bool = False
    peer: bool = False
    judged: bool = True
    needs: tuple[str, str] | None = None
    flags: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    never: tuple[str, ...] = ()

    def takes_part(self, run: str) -> bool:
        """Whether a run is for this row."""
        return (not self.only or run.startswith(self.only)) and not run.startswith(self.never)

    def missing(self) -> str | None:
        """Why it cannot run here; None when it can."""
        if self.needs and not shutil.which(self.needs[0], path=_search_path()):
            return f"{self.needs[0]} is not installed (Debian package {self.needs[1]})"
        if self.name == "nginx" and not NGINX_STREAM.exists():
            return "nginx has no stream module (Debian package libnginx-mod-stream)"
        for flag in self.flags:
            if flag not in dbproxy_help():
                return f"dbproxy has no {flag} yet"
        return None


def _search_path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])


def program(name: str) -> str:
    """The full path of a program; daemons are often not on a user's PATH."""
    return shutil.which(name, path=_search_path()) or name


@functools.cache
def dbproxy_help() -> str:
    """What `dbproxy db --help` says."""
    command = [DBPROXY, "db", "--help"]
    asked = subprocess.run(
        command, capture_output=True, text=True, check=False, env=clean_environment()
    )
    return asked.stdout


def dbproxy(*options: str) -> Command:
    """The installed command with these options."""

    def command(site: Site) -> Sequence[str | Path]:
        globals_ = ("--destination-dir", site.files.destination, "--proxy", site.upstream)
        trust = ("--proxy-ca", site.files.web_ca)
        port = ("--port", str(site.port), "--format=json")
        return (DBPROXY, *globals_, *trust, "db", *port, *options)

    return command


def terminated(site: Site, proxy: Running | None) -> Sequence[str | Path]:
    """As an application connects to `--terminate`: PostgreSQL's TLS with tbot's certificate."""
    assert proxy is not None
    started = json.loads(proxy.wait_for_output())
    cert, key = site.files.client
    return ("-tls", "postgres", "-cert", cert, "-key", key, "-ca", started["ca_file"])


def direct(site: Site, proxy: Running | None) -> Sequence[str | Path]:
    """The load generator speaks TLS itself: what is possible without a proxy."""
    del proxy
    cert, key = site.files.client
    pair = ("-cert", cert, "-key", key, "-ca", site.files.web_ca)
    return ("-tls", "direct", *pair, "-alpn", PLAIN_ALPN, "-resume")


def go_peer(*options: str) -> Command:
    """Our program that does what tsh does."""

    def command(site: Site) -> Sequence[str | Path]:
        cert, key = site.files.client
        ends = ("-listen", f"127.0.0.1:{site.port}", "-upstream", site.upstream)
        files = ("-cert", cert, "-key", key, "-ca", site.files.web_ca)
        return (site.programs.peer, *ends, *files, *options)

    return command


def stunnel(site: Site) -> Sequence[str | Path]:
    """Client mode, defaults."""
    cert, key = site.files.client
    config = site.directory / "stunnel.conf"
    config.write_text(
        f"""\
foreground = yes
pid =
syslog = no
[bench]
client = yes
accept = 127.0.0.1:{site.port}
connect = {site.upstream}
sni = localhost
cert = {cert}
key = {key}
CAfile = {site.files.web_ca}
verifyChain = yes
checkHost = localhost
sslVersion = TLSv1.3
""",
        encoding="utf-8",
    )
    return (program("stunnel"), config)


def haproxy(tuning: str = "") -> Command:
    """TCP mode, defaults but for one line of tuning; as many threads as processors."""

    def command(site: Site) -> Sequence[str | Path]:
        config = site.directory / "haproxy.cfg"
        config.write_text(
            f"""\
global
    maxconn {MAX_CONNECTIONS}
    {tuning}
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
frontend local
    bind 127.0.0.1:{site.port}
    default_backend upstream
backend upstream
    server upstream {site.upstream} ssl verify required ca-file {site.files.web_ca} \
crt {site.files.client_pem} alpn {PLAIN_ALPN} sni str(localhost) verifyhost localhost \
ssl-min-ver TLSv1.3
""",
            encoding="utf-8",
        )
        return (program("haproxy"), "-db", "-f", config)

    return command


def nginx(site: Site) -> Sequence[str | Path]:
    """The stream module, 64 KiB buffers, session reuse; as many workers as processors."""
    cert, key = site.files.client
    config = site.directory / "nginx.conf"
    config.write_text(
        f"""\
load_module {NGINX_STREAM};
user {_user()};
daemon off;
pid {site.directory}/nginx.pid;
error_log stderr crit;
worker_processes auto;
worker_rlimit_nofile {4 * MAX_CONNECTIONS};
events {{ worker_connections {2 * MAX_CONNECTIONS}; }}
stream {{
    server {{
        listen 127.0.0.1:{site.port};
        proxy_pass {site.upstream};
        proxy_buffer_size 64k;
        proxy_timeout 1h;
        proxy_ssl on;
        proxy_ssl_session_reuse on;
        proxy_ssl_protocols TLSv1.3;
        proxy_ssl_certificate {cert};
        proxy_ssl_certificate_key {key};
        proxy_ssl_trusted_certificate {site.files.web_ca};
        proxy_ssl_verify on;
        proxy_ssl_name localhost;
        proxy_ssl_server_name on;
    }}
}}
""",
        encoding="utf-8",
    )
    return (program("nginx"), "-p", site.directory, "-c", config, "-e", "stderr")


def _user() -> str:
    """Whose workers nginx runs: ours, because the files are ours."""
    return "root" if os.geteuid() == 0 else os.environ.get("USER", "nobody")


STUNNEL: Final = ("stunnel", "stunnel4")
HAPROXY: Final = ("haproxy", "haproxy")
NGINX: Final = ("nginx", "nginx-core")
MANY_CORES: Final = ("bulk-up-8", "bulk-down-8", "bulk-both-8", "rt-64-256", "connect-8")

ROWS: Final = (
    Row("dbproxy", "dbproxy --tunnel, ping", dbproxy("--tunnel"), ping=True),
    Row("go", "Go peer (as tsh), ping", go_peer("-alpn", PING_ALPN), ping=True, peer=True),
    Row("stunnel", "stunnel", stunnel, peer=True, needs=STUNNEL),
    Row("haproxy", "HAProxy", haproxy(), peer=True, needs=HAPROXY),
    Row(
        "haproxy-64k",
        "HAProxy, tune.bufsize 65536",
        haproxy("tune.bufsize 65536"),
        peer=True,
        needs=HAPROXY,
    ),
    Row("nginx", "nginx stream, 64 KiB buffers", nginx, peer=True, needs=NGINX),
    Row("go-plain", "Go peer, plain ALPN", go_peer("-alpn", PLAIN_ALPN), peer=True),
    Row(
        "go-resume",
        "Go peer, ping, sessions resumed",
        go_peer("-alpn", PING_ALPN, "-resume"),
        ping=True,
        judged=False,
        only=("connect",),
    ),
    Row(
        "dbproxy-prewarm",
        "dbproxy --tunnel --prewarm 8, ping",
        dbproxy("--tunnel", "--prewarm=8"),
        ping=True,
        flags=("--prewarm",),
        only=("connect", "idle"),
    ),
    Row(
        "dbproxy-workers",
        "dbproxy --tunnel --workers auto, ping",
        dbproxy("--tunnel", "--workers=auto"),
        ping=True,
        flags=("--workers",),
        only=MANY_CORES,
    ),
    Row("dbproxy-plain", "dbproxy --tunnel, plain ALPN", dbproxy("--tunnel"), judged=False),
    Row(
        "dbproxy-terminate",
        "dbproxy --terminate, ping",
        dbproxy("--terminate"),
        load=terminated,
        ping=True,
        judged=False,
    ),
    Row(
        "dbproxy-passthrough",
        "dbproxy (passthrough), ping",
        dbproxy(),
        ping=True,
        judged=False,
        only=("pgbench",),
    ),
    Row(
        "dbproxy-upgrade",
        "dbproxy --tunnel, WebSocket upgrade, ping",
        dbproxy("--tunnel", "--connection-upgrade=always"),
        ping=True,
        judged=False,
        flags=("--connection-upgrade",),
    ),
    Row("direct", "no proxy (the limit)", None, load=direct, judged=False, never=("idle",)),
)
