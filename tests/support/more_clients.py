"""Real clients of databases other than PostgreSQL, told how to connect by the start message.

They block, so they are for worker threads; see `database_clients.in_thread`.
"""

import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import redis
from cassandra.cluster import Cluster
from clickhouse_driver import Client
from pymongo import MongoClient
from running_proxy import PATIENCE, RunningProxy

from dbproxy import Mode

TIMEOUT = 10
"""Seconds that a driver may take for one step."""


def is_plain(proxy: RunningProxy) -> bool:
    """Whether clients use no TLS."""
    return proxy.started.mode is Mode.TUNNEL


def tls_context(proxy: RunningProxy) -> ssl.SSLContext | None:
    """Trusts and shows what the start message says."""
    started = proxy.started
    if started.certificate_file is None:
        return None
    context = ssl.create_default_context(cafile=started.ca_file)
    context.load_cert_chain(started.certificate_file, started.key_file)
    return context


@contextmanager
def redis_client(proxy: RunningProxy, **changes: Any) -> Iterator[redis.Redis]:
    """redis-py, with one connection and without retries of its own."""
    started = proxy.started
    arguments: dict[str, Any] = {
        "host": "localhost",
        "port": proxy.port,
        "ssl": not is_plain(proxy),
        "socket_timeout": TIMEOUT,
        "retry": None,
    }
    if not is_plain(proxy):
        arguments["ssl_ca_certs"] = str(started.ca_file)
        arguments["ssl_certfile"] = str(started.certificate_file)
        arguments["ssl_keyfile"] = str(started.key_file)
    with closing(redis.Redis(**(arguments | changes))) as client:
        yield client


@contextmanager
def mongo_client(
    proxy: RunningProxy, directory: Path, **changes: Any
) -> Iterator[MongoClient[dict[str, Any]]]:
    """PyMongo; certificate and key go into one file in `directory`, as MongoDB's clients want."""
    started = proxy.started
    arguments: dict[str, Any] = {
        "directConnection": True,
        "serverSelectionTimeoutMS": 1000,
        "tls": not is_plain(proxy),
    }
    if started.certificate_file is not None and started.key_file is not None:
        both = directory / "both.pem"
        both.touch(mode=0o600)
        both.write_bytes(started.certificate_file.read_bytes() + started.key_file.read_bytes())
        arguments |= {"tlsCAFile": str(started.ca_file), "tlsCertificateKeyFile": str(both)}
    with MongoClient("localhost", proxy.port, **(arguments | changes)) as client:
        yield client


def ask_cassandra(proxy: RunningProxy) -> None:
    """Connect with the DataStax driver."""
    context = tls_context(proxy)
    cluster = Cluster(
        ["localhost"],
        port=proxy.port,
        ssl_context=context,
        ssl_options=None if context is None else {"server_hostname": "localhost"},
        connect_timeout=TIMEOUT,
    )
    try:
        cluster.connect()
    finally:
        cluster.shutdown()


def ask_clickhouse(proxy: RunningProxy) -> None:
    """Connect with clickhouse-driver, in ClickHouse's native protocol."""
    started = proxy.started
    files: dict[str, Any] = {}
    if not is_plain(proxy):
        files = {
            "ca_certs": str(started.ca_file),
            "certfile": str(started.certificate_file),
            "keyfile": str(started.key_file),
        }
    client = Client("localhost", port=proxy.port, secure=not is_plain(proxy), **files)
    try:
        client.execute("SELECT 1")
    finally:
        client.disconnect()


def ask_http(proxy: RunningProxy, path: str = "/") -> httpx.Response:
    """Send a GET request."""
    context = tls_context(proxy)
    scheme = "http" if context is None else "https"
    with httpx.Client(verify=context or True, trust_env=False, timeout=TIMEOUT) as client:
        return client.get(f"{scheme}://localhost:{proxy.port}{path}")


def ask_http2(proxy: RunningProxy) -> httpx.Response:
    """Send a GET request over HTTP/2, as gRPC's clients do: agreed in TLS, or known beforehand."""
    context = tls_context(proxy)
    scheme = "http" if context is None else "https"
    options: dict[str, Any] = {"verify": context or True, "trust_env": False, "timeout": TIMEOUT}
    with httpx.Client(http1=context is not None, http2=True, **options) as client:
        return client.get(f"{scheme}://localhost:{proxy.port}/")


def run_line(line: str) -> tuple[int, str, str]:
    """Run a command line as it would be pasted into a shell: status, output and errors."""
    done = subprocess.run(
        line,
        shell=True,
        executable="/bin/bash",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr
