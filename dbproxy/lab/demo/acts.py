"""The second half of the guide: dbproxy in its three modes, and the application that uses it."""

from __future__ import annotations

import shlex
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import trio

from dbproxy.lab import guide
from dbproxy.lab.demo import script
from dbproxy.lab.demo.client import Client, open_client, refusal
from dbproxy.lab.demo.narrator import Narrator
from dbproxy.lab.demo.port import Port, open_port
from dbproxy.lab.demo.stage import STEP_PATIENCE, Stage, expect
from dbproxy.lab.errors import LabError

__all__ = ["open_ports", "query", "refuse", "renew", "stay", "stop"]

WHO: Final = {
    "passthrough": "TLS from the client to Teleport; dbproxy sees ciphertext only",
    "terminate": "TLS from the client to dbproxy, which checks its certificate",
    "tunnel": "plaintext from the client; every user of this host may connect",
}


@asynccontextmanager
async def open_ports(stage: Stage, say: Narrator) -> AsyncIterator[list[Port]]:
    """Run `dbproxy db` in each mode while the block runs."""
    async with AsyncExitStack() as stack:
        ports = []
        for mode, meaning in WHO.items():
            with say.step(f"dbproxy, {mode}: {meaning}"):
                arguments = _arguments(stage, mode)
                say.command(shlex.join(["dbproxy", *arguments]))
                opening = open_port(stage.workshop, mode, arguments)
                port = await stack.enter_async_context(opening)
                say.quote(port.said[:1])
                await _check_listening(port)
                say.done(f"clients can connect to localhost:{port.number}")
            ports.append(port)
        yield ports


def _arguments(stage: Stage, mode: str) -> list[str]:
    """Spelled out as in Teleport's guide for the first mode; from tbot.yaml for the others."""
    trust = f"--proxy-ca={stage.lab.web_ca_file}"
    if mode == "passthrough":
        place = f"--destination-dir={stage.workshop.destination}"
        return [place, f"--proxy={stage.proxy}", trust, "db", guide.SERVICE]
    return ["-c", str(stage.workshop.tbot_yaml), trust, "db", f"--{mode}", guide.SERVICE]


async def _check_listening(port: Port) -> None:
    stream = await trio.open_tcp_stream("localhost", int(port.number))
    await stream.aclose()


async def query(ports: Sequence[Port], say: Narrator) -> None:
    """The application's query, through each port."""
    with say.step("Queries with psycopg, as in the guide"), trio.fail_after(STEP_PATIENCE):
        say.command(script.QUERY)
        for port in ports:
            async with open_client(port.parameters) as client:
                rows = await client.rows()
                expect(rows == script.PLANETS, f"{port.mode}: the rows are {rows}")
            names = ", ".join(name for _, name in script.PLANETS)
            say.done(f"{port.mode}, sslmode={port.parameters['sslmode']}: {names}")


async def refuse(ports: Sequence[Port], say: Narrator) -> None:
    """Clients that must not get in, and what they are told."""
    passthrough, terminate, tunnel = (port.parameters for port in ports)
    nobody = {"sslcertmode": "disable", "sslcert": "", "sslkey": ""}
    with (
        say.step("Refusals, and the reason that the client prints"),
        trio.fail_after(STEP_PATIENCE),
    ):
        for what, parameters, expected in (
            ("no certificate, passthrough", passthrough | nobody, "alert"),
            ("no certificate, terminate", terminate | nobody, "client-certificate-missing"),
            ("plaintext, terminate", terminate | {"sslmode": "disable"}, "client-not-tls"),
            ("database not in the role", terminate | {"dbname": "postgres"}, "access to db denied"),
            ("TLS required, tunnel", tunnel | {"sslmode": "require"}, "does not support SSL"),
        ):
            try:
                said = await refusal(parameters, expected)
            except LabError as error:
                raise LabError(f"{what}: {error}") from error
            say.done(f"{what}:")
            say.quote(said)


async def renew(stage: Stage, ports: Sequence[Port], say: Narrator) -> None:
    """A renewal while connections are open."""
    with say.step("A renewal under open connections"), trio.fail_after(STEP_PATIENCE):
        async with AsyncExitStack() as stack:
            old = [await _connect(stack, stage, port) for port in ports]
            say.done(f"{len(old)} connections are open, one in each mode")
            before = stage.tbot.generation
            await stage.tbot.renew()
            say.done(f"tbot wrote generation {before + 1}: a new key and a new certificate")
            for client, _ in old:
                expect(await client.rows() == script.PLANETS, "an open connection lost its rows")
            say.done("the open connections still answer")
            new = [await _connect(stack, stage, port) for port in ports]
            _compare([serial for _, serial in old], [serial for _, serial in new], say)


async def _connect(stack: AsyncExitStack, stage: Stage, port: Port) -> tuple[Client, int | None]:
    """A connection, and the serial number of the certificate that Teleport saw for it."""
    client = await stack.enter_async_context(open_client(port.parameters))
    expect(await client.rows() == script.PLANETS, f"{port.mode}: wrong rows")
    certificate = stage.lab.handshakes[-1].client_certificate
    return client, None if certificate is None else certificate.serial_number


def _compare(old: Sequence[int | None], new: Sequence[int | None], say: Narrator) -> None:
    pairs = [(was, now) for was, now in zip(old, new, strict=True) if was is not None]
    expect(bool(pairs), "Teleport saw no certificate from dbproxy")
    expect(all(was != now for was, now in pairs), "a new connection used the old certificate")
    was, now = pairs[0]
    say.done(f"new connections use the new certificate: serial {was:x} before, {now:x} now")


async def stop(stage: Stage, ports: Sequence[Port], say: Narrator) -> None:
    """The end: SIGTERM, and nothing that stays behind."""
    with say.step("The end"), trio.fail_after(STEP_PATIENCE):
        for port in ports:
            port.process.send_signal(signal.SIGTERM)
        for port in ports:
            status = await port.process.wait()
            expect(status == 0, f"{port.mode}: dbproxy ended with status {status}")
        say.done("each dbproxy ended with status 0 on SIGTERM")
        while stage.lab.connections:  # noqa: ASYNC110 - the lab counts, and announces nothing
            await trio.sleep(0.01)
        sessions = len(stage.lab.audit.ends())
        say.done(f"the cluster's audit log has {sessions} sessions, and no connection is open")


async def stay(stage: Stage, ports: Sequence[Port], say: Narrator) -> None:
    """Print what to paste and wait until cancelled."""
    for port in ports:
        say.paste(port.mode, port.psql)
    if shutil.which("psql") is None:
        say.note(f"There is no psql on the PATH. {stage.postgres.bin_directory}/psql has no TLS,")
        say.note("which is enough for the tunnel.")
    say.end(f"All of it stays up until Ctrl-C. Try: {script.QUERY};")
    await trio.sleep_forever()
