"""Real database servers other than PostgreSQL, each for the length of a block."""

import errno
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

OUTSIDE = (16384, 32768)
"""Ports below those that Linux hands out (net.ipv4.ip_local_port_range)."""
START_TIMEOUT = 30.0
"""Seconds until a server must accept connections, also on a busy machine."""


@asynccontextmanager
async def redis_server() -> AsyncIterator[str]:
    """A Redis that keeps nothing; its address, on a Unix socket.

    Raises:
        LookupError: No redis-server is on the PATH.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise LookupError("redis-server is not on the PATH; on Debian: apt install redis-server")
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:
        path = Path(directory, "redis.sock")
        settings = {"--port": "0", "--unixsocket": str(path), "--save": "", "--dir": directory}
        command = [program, *(word for setting in settings.items() for word in setting)]
        async with _running(command, Path(directory), partial(trio.open_unix_socket, path)):
            yield f"unix://{path}"


@asynccontextmanager
async def mongodb_server() -> AsyncIterator[str]:
    """A server of MongoDB's wire protocol, with its data in memory; its address."""
    port = _unused_port()
    program = Path(sys.executable).with_name("nx-27017")
    with tempfile.TemporaryDirectory(prefix="mongodb-") as directory:
        files = {"--log-file": "log", "--pid-file": "pid"}
        command = [str(program), "--db", "memory", "--host", "127.0.0.1", "--port", str(port)]
        for option, name in files.items():
            command += [option, str(Path(directory, name))]
        connect = partial(trio.open_tcp_stream, "127.0.0.1", port)
        async with _running(command, Path(directory), connect):
            yield f"127.0.0.1:{port}"


def _unused_port() -> int:
    """A port for a server that takes none by itself.

    It is none of those that the system hands out: until the server listens, any connection of
    anybody, even the one that looks for the server, could be given that very port.
    """
    while True:
        port = random.randrange(*OUTSIDE)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise


@asynccontextmanager
async def _running(
    command: Sequence[str], directory: Path, connect: Callable[[], Awaitable[trio.SocketStream]]
) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        run = partial(
            trio.run_process,
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        await nursery.start(run)
        await _until_it_accepts(connect)
        yield
        nursery.cancel_scope.cancel()


async def _until_it_accepts(connect: Callable[[], Awaitable[trio.SocketStream]]) -> None:
    with trio.fail_after(START_TIMEOUT):
        while True:
            try:
                stream = await connect()
            except OSError:
                await trio.sleep(0.02)
            else:
                await stream.aclose()
                return
