"""The psql line of the start message works as it is, wherever dbproxy listens."""

import shlex
import subprocess
from pathlib import Path

import psycopg
import pytest
import trio
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from database_clients import Psql, in_thread
from running_proxy import PATIENCE, ProxyIn, RunningProxy, every_mode

from dbproxy import Mode
from dbproxy.lab.certificate_authority import CertificateAuthority


async def paste(psql: Psql, proxy: RunningProxy) -> str:
    """Run the line with a question added; returns psql's answer."""
    program, conninfo = shlex.split(proxy.started.connect_command)
    assert program == "psql"
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [psql.program, conninfo, "-X", "-A", "-t", "-c", "SELECT 42"],
            env=psql.environment,
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return (done.stdout or done.stderr).decode().strip()


@every_mode
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "[::1]", "0.0.0.0", "[::]"])
async def test_the_line_works_for_every_address(
    mode: Mode, address: str, proxy_in: ProxyIn, psql: Psql
) -> None:
    listening = {"listen": f"{address}:0", "unsafe_listen_anywhere": True}
    async with proxy_in(mode, **listening) as proxy:
        assert ("sslmode=verify-full" in proxy.started.connect_command) is (mode != Mode.TUNNEL)
        assert await paste(psql, proxy) == "42"


@pytest.mark.parametrize("with_root", [False, True])
@pytest.mark.parametrize("name", ["localhost", "db.example.com"])
async def test_the_line_works_with_a_server_certificate_of_our_own(
    with_root: bool,
    name: str,
    proxy_in: ProxyIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With psycopg, whose libpq is new enough to know the system's roots."""
    authority = CertificateAuthority.create("Company CA")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "db")])
    pair = authority.issue_pair(subject, [name], [ExtendedKeyUsageOID.SERVER_AUTH])
    cert, key, roots = (tmp_path / file for file in ("db.crt", "db.key", "roots.pem"))
    cert.write_bytes(pair.certificate_pem + (authority.pem if with_root else b""))
    key.write_bytes(pair.key_pem)
    async with proxy_in(Mode.TERMINATE, server_cert=cert, server_key=key) as proxy:
        assert f"sslrootcert={cert if with_root else 'system'} " in proxy.started.connect_command
        assert proxy.started.ca_file == (cert if with_root else None)
        if not with_root:
            roots.write_bytes(authority.pem)
            monkeypatch.setenv("SSL_CERT_FILE", str(roots))  # OpenSSL's system roots
        assert await in_thread(ask, proxy.started.connect_command) == 42


def ask(command: str) -> object:
    _program, conninfo = shlex.split(command)
    with psycopg.connect(conninfo) as connection:
        row = connection.execute("SELECT 42").fetchone()
        return row and row[0]
