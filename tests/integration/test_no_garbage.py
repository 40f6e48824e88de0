"""A connection that has ended is gone at once, not when the garbage collector looks.

With what OpenSSL keeps for it, each one takes 50 KiB, and collecting it takes time from the others.
"""

import gc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
import trio
from data_client import data_connection, reset, take_first_message
from lab_client import exactly, until
from odd_pieces import Stream
from running_proxy import Destination, RunningProxy, every_mode, running_proxy
from stream_ends import receive_all

from dbproxy import Mode
from dbproxy.downstream.client import Client
from dbproxy.downstream.progress import Progress
from dbproxy.lab import Action, Fault, FaultPlan, Step, open_lab
from dbproxy.lab.handshake import Handshake
from dbproxy.relay import LayeredStream

pytestmark = pytest.mark.usefixtures("each_relay")

CONNECTIONS = 3


LeftOver = Callable[[], list[str]]


@contextmanager
def garbage_stays() -> Iterator[LeftOver]:
    """Within the block; the value tells the kinds of objects that are left of its connections."""
    gc.collect()
    before = objects_of_connections()  # of other tests
    gc.disable()
    try:
        yield lambda: [
            type(one).__name__
            for one in objects_of_connections()
            if not any(one is other for other in before)
        ]
    finally:
        gc.enable()


def objects_of_connections() -> list[object]:
    kinds = Client, Progress, LayeredStream
    return [one for one in gc.get_objects() if isinstance(one, kinds)]


@asynccontextmanager
async def echoing(
    mode: Mode, destination: Destination, directory: Path, *faults: Fault
) -> AsyncIterator[RunningProxy]:
    """A proxy whose upstream sends back what comes behind the first message."""

    async def echo(stream: Stream, _facts: Handshake) -> None:
        await take_first_message(stream)
        while data := await stream.receive_some():
            await stream.send_all(data)

    async with open_lab(
        databases=[], directory=directory / "lab", handler=echo, faults=FaultPlan(*faults)
    ) as lab:
        lab.authority.trusted_user_cas = destination.lab.authority.trusted_user_cas
        async with running_proxy(mode, lab, destination.directory, connect_grace=0) as proxy:
            yield proxy


async def nothing_is_left(proxy: RunningProxy, left_over: LeftOver) -> None:
    """Once the connections' tasks have ended as well."""
    await proxy.all_closed(CONNECTIONS)
    with suppress(trio.TooSlowError):
        await until(lambda: not left_over(), 2)
    assert left_over() == []


@every_mode
@pytest.mark.parametrize("end", ["client", "client's reset"])
async def test_when_the_client_ends(
    end: str, mode: Mode, destination: Destination, tmp_path: Path
) -> None:
    async with echoing(mode, destination, tmp_path) as proxy:
        with garbage_stays() as left_over:
            for _ in range(CONNECTIONS):
                async with data_connection(proxy) as stream:
                    await stream.send_all(b"hello")
                    assert await exactly(stream, 5) == b"hello"
                    if end == "client":
                        await stream.send_eof()
                        assert await receive_all(stream) == b""
                    else:
                        reset(stream)
            await nothing_is_left(proxy, left_over)


@every_mode
@pytest.mark.parametrize("action", [Action.RESET, Action.CLOSE, Action.GOODBYE], ids=str)
async def test_when_the_upstream_ends_or_breaks_off(
    action: Action, mode: Mode, destination: Destination, tmp_path: Path
) -> None:
    fault = Fault(Step.SENT, action, size=8)
    async with echoing(mode, destination, tmp_path, fault) as proxy:
        with garbage_stays() as left_over:
            for _ in range(CONNECTIONS):
                try:
                    async with data_connection(proxy) as stream:
                        await stream.send_all(b"hello, hello")
                        await receive_all(stream)
                except trio.BrokenResourceError:
                    continue
            await nothing_is_left(proxy, left_over)
