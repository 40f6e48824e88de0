"""Not a byte is lost, doubled or reordered on the way to a handler behind the lab's ALPN.

The handler takes the place of the Proxy's own, so that the bytes need not be PostgreSQL.
"""

import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from data_client import data_connection, reset, take_first_message
from lab_client import until
from odd_pieces import MEBIBYTE, Stream, echo, in_odd_pieces, receive, send
from running_proxy import PATIENCE, Destination, RunningProxy, every_mode, running_proxy
from trio.testing import wait_all_tasks_blocked

from dbproxy import Code, Mode
from dbproxy.events import ClosedBy
from dbproxy.lab import Lab, open_lab
from dbproxy.lab.handshake import Handshake

pytestmark = pytest.mark.usefixtures("each_relay", "patient")

RESETS = 40
AT_ONCE = 8

Handler = Callable[[Stream, Handshake], Awaitable[None]]

framings = pytest.mark.parametrize("framing", ["pings", "plain"])
"""Ping framing with a ping every few milliseconds in between, and no framing."""


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a ping every few milliseconds a busy machine would look like an upstream that is gone.

    Three of those intervals are soon over while the lab, the proxy and the test share one loop.
    """
    monkeypatch.setattr("dbproxy.relay.silence.MISSED_PINGS", 10_000)


@asynccontextmanager
async def served_by(
    handler: Handler,
    mode: Mode,
    destination: Destination,
    directory: Path,
    framing: str = "pings",
) -> AsyncIterator[tuple[RunningProxy, Lab]]:
    """A proxy whose upstream hands every connection to `handler`."""

    async def serve(stream: Stream, facts: Handshake) -> None:
        await take_first_message(stream)
        await handler(stream, facts)

    async with open_lab(
        databases=[],
        directory=directory / "served",
        handler=serve,
        ping=framing != "plain",
        ping_interval=0.003,
    ) as lab:
        lab.authority.trusted_user_cas = destination.lab.authority.trusted_user_cas
        async with running_proxy(mode, lab, destination.directory) as proxy:
            yield proxy, lab


@every_mode
@framings
async def test_64_mib_are_echoed_while_they_are_sent_and_8_mib_without_framing(
    mode: Mode, framing: str, destination: Destination, tmp_path: Path, blob: bytes
) -> None:
    data = blob if framing == "pings" else blob[: 8 * MEBIBYTE]
    async with served_by(echo, mode, destination, tmp_path, framing) as (proxy, lab):
        with trio.fail_after(2 * PATIENCE):
            async with data_connection(proxy) as stream, trio.open_nursery() as nursery:
                nursery.start_soon(send, stream, data)
                await receive(stream, data)
        record = await proxy.record()
    expected_alpn = "teleport-postgres" + ("" if framing == "plain" else "-ping")
    assert expected_alpn in {facts.alpn for facts in lab.handshakes}
    assert record.outcome == "relayed"
    assert record.bytes_down == len(data)
    assert record.bytes_up > len(data)


@every_mode
@framings
async def test_the_reply_to_a_half_closed_client_arrives_whole(
    mode: Mode, framing: str, destination: Destination, tmp_path: Path, blob: bytes
) -> None:
    request, reply = blob[:MEBIBYTE], blob[-16 * MEBIBYTE :]

    async def answer(stream: Stream, _facts: Handshake) -> None:
        await receive(stream, request)
        await send(stream, reply)

    async with served_by(answer, mode, destination, tmp_path, framing) as (proxy, _):
        with trio.fail_after(PATIENCE):
            async with data_connection(proxy) as stream:
                await send(stream, request)
                await receive(stream, reply)
        record = await proxy.record()
    assert (record.outcome, record.reason, record.closed_by) == ("relayed", None, ClosedBy.CLIENT)


@every_mode
@framings
async def test_an_upstream_that_half_closes_still_receives_everything(
    mode: Mode, framing: str, destination: Destination, tmp_path: Path, blob: bytes
) -> None:
    greeting, upload = b"send it", blob[: 16 * MEBIBYTE]
    received_whole = trio.Event()

    async def collect(stream: Stream, _facts: Handshake) -> None:
        await send(stream, greeting)
        await receive(stream, upload)
        received_whole.set()

    async with served_by(collect, mode, destination, tmp_path, framing) as (proxy, _):
        with trio.fail_after(PATIENCE):
            async with data_connection(proxy) as stream:
                await receive(stream, greeting)
                await send(stream, upload)
                await received_whole.wait()
        record = await proxy.record()
    assert (record.outcome, record.reason, record.closed_by) == ("relayed", None, ClosedBy.UPSTREAM)


# Resets


def open_files() -> int:
    """How many files, sockets and pipes this process has open.

    The kernel's own objects do not count: a watching thread opens and closes its inotify and epoll
    descriptors when it gets to run.
    """
    gc.collect()
    count = 0
    for descriptor in list(Path("/dev/fd").iterdir()):
        with suppress(FileNotFoundError):  # that of the listing itself
            count += not str(descriptor.readlink()).startswith("anon_inode:")
    return count


def living_tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


@asynccontextmanager
async def nothing_left_behind(lab: Lab) -> AsyncIterator[None]:
    """After the block, there are no connections, and no more tasks and files than before.

    There may be fewer files: a watching thread of an earlier proxy may end meanwhile.
    """
    await wait_all_tasks_blocked()
    files, tasks = open_files(), living_tasks()
    yield
    await until(lambda: lab.connections == 0, PATIENCE)
    await until(lambda: living_tasks() == tasks, PATIENCE)
    await until(lambda: open_files() <= files, PATIENCE)


async def receive_at_least(
    stream: trio.abc.ReceiveStream,
    size: int,
    pass_on: Callable[[bytes], Awaitable[None]] | None = None,
) -> None:
    """Receive that many bytes; each piece is passed on."""
    while size > 0:
        data = bytes(await stream.receive_some())
        assert data, f"ended {size} bytes too early"
        if pass_on is not None:
            await pass_on(data)
        size -= len(data)


async def many(one: Callable[[], Awaitable[None]]) -> None:
    """Do it 40 times, some at once."""
    limit = trio.CapacityLimiter(AT_ONCE)

    async def limited() -> None:
        async with limit:
            await one()

    with trio.fail_after(2 * PATIENCE):
        async with trio.open_nursery() as nursery:
            for _ in range(RESETS):
                nursery.start_soon(limited)


@every_mode
async def test_40_resets_by_clients_leave_nothing_behind(
    mode: Mode, destination: Destination, tmp_path: Path, blob: bytes
) -> None:
    async with served_by(echo, mode, destination, tmp_path) as (proxy, lab):

        async def broken_off() -> None:
            async with data_connection(proxy) as stream:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send, stream, blob)
                    await receive_at_least(stream, MEBIBYTE)
                    nursery.cancel_scope.cancel()
                reset(stream)

        async with nothing_left_behind(lab):
            await many(broken_off)
            records = await proxy.all_closed(RESETS)
    assert {(record.outcome, record.closed_by) for record in records} == {
        ("relayed", ClosedBy.CLIENT)
    }


@asynccontextmanager
async def resetting_forwarder(target: str, after: int) -> AsyncIterator[str]:
    """A hop in front of `target` that resets both sides after so many bytes back."""
    host, port = target.rsplit(":", 1)

    async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await sink.send_all(data)

    async def forward(near: trio.SocketStream) -> None:
        async with near, await trio.open_tcp_stream(host, int(port)) as far:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(copy, near, far)
                await receive_at_least(far, after, near.send_all)
                nursery.cancel_scope.cancel()
            reset(near)
            reset(far)

    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        nursery.start_soon(trio.serve_listeners, forward, [listener])
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@every_mode
async def test_40_resets_by_the_upstream_leave_nothing_behind(
    mode: Mode, destination: Destination, tmp_path: Path, blob: bytes
) -> None:
    async with (
        served_by(echo, mode, destination, tmp_path) as (_, lab),
        resetting_forwarder(lab.address, after=MEBIBYTE) as address,
        running_proxy(
            mode, lab, destination.directory, proxy=address, connection_upgrade="never"
        ) as proxy,
    ):

        async def broken_off() -> None:
            async with data_connection(proxy) as stream, trio.open_nursery() as nursery:

                async def send_in_vain() -> None:
                    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        await send(stream, blob)

                nursery.start_soon(send_in_vain)
                with suppress(trio.BrokenResourceError):
                    while await stream.receive_some():
                        pass
                nursery.cancel_scope.cancel()

        async with nothing_left_behind(lab):
            await many(broken_off)
            records = await proxy.all_closed(RESETS)
    assert {(record.outcome, record.closed_by) for record in records} == {
        ("relayed", ClosedBy.UPSTREAM)
    }


async def test_half_an_answer_does_not_end_as_if_it_were_whole(
    destination: Destination, tmp_path: Path, blob: bytes
) -> None:
    async with (
        served_by(echo, Mode.TERMINATE, destination, tmp_path) as (_, lab),
        resetting_forwarder(lab.address, after=MEBIBYTE) as address,
        running_proxy(
            Mode.TERMINATE, lab, destination.directory, proxy=address, connection_upgrade="never"
        ) as proxy,
        data_connection(proxy) as stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(stream.send_all, blob[: 2 * MEBIBYTE])
        with pytest.raises(trio.BrokenResourceError, match="without close_notify"):
            await receive_at_least(stream, 2 * MEBIBYTE)
        record = await proxy.record()
    assert (record.outcome, record.code) == ("relayed", Code.UPSTREAM_LOST)


# Backpressure

MOST_IN_FLIGHT = 40 * MEBIBYTE
"""What the buffers of five sockets may hold: up to 6 MiB each on Linux, and some reserve."""


class Progress:
    """Counts what a sender got rid of, and tells when that stops growing."""

    def __init__(self) -> None:
        self.sent = 0

    async def send(self, stream: Stream, data: bytes) -> None:
        for piece in in_odd_pieces(data):
            await stream.send_all(piece)
            self.sent += len(piece)
        await stream.send_eof()

    async def stalls(self) -> int:
        """Wait until nothing more is taken for a while; how much has been taken then."""
        with trio.fail_after(PATIENCE):
            before = -1
            while self.sent == 0 or self.sent != before:
                before = self.sent
                await trio.sleep(0.25)
        return self.sent


@every_mode
@framings
async def test_a_client_that_does_not_read_slows_the_upstream_down(
    mode: Mode, framing: str, destination: Destination, tmp_path: Path, blob: bytes
) -> None:
    progress = Progress()

    async def pour(stream: Stream, _facts: Handshake) -> None:
        await progress.send(stream, blob)

    async with (
        served_by(pour, mode, destination, tmp_path, framing) as (proxy, _),
        data_connection(proxy) as stream,
    ):
        assert await progress.stalls() < MOST_IN_FLIGHT
        with trio.fail_after(PATIENCE):
            await receive(stream, blob)


@every_mode
@framings
async def test_an_upstream_that_does_not_read_slows_the_client_down(
    mode: Mode, framing: str, destination: Destination, tmp_path: Path, blob: bytes
) -> None:
    progress, may_read, received_whole = Progress(), trio.Event(), trio.Event()

    async def hesitate(stream: Stream, _facts: Handshake) -> None:
        await may_read.wait()
        await receive(stream, blob)
        received_whole.set()

    async with (
        served_by(hesitate, mode, destination, tmp_path, framing) as (proxy, _),
        data_connection(proxy) as stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(progress.send, stream, blob)
        assert await progress.stalls() < MOST_IN_FLIGHT
        may_read.set()
        with trio.fail_after(PATIENCE):
            await received_whole.wait()


@every_mode
async def test_a_client_that_does_not_read_does_not_hold_up_others(
    mode: Mode, destination: Destination, tmp_path: Path, blob: bytes
) -> None:
    poured: list[Handshake] = []

    async def pour_or_echo(stream: Stream, facts: Handshake) -> None:
        if not poured:
            poured.append(facts)
            with suppress(trio.BrokenResourceError):
                await stream.send_all(blob)
        else:
            await echo(stream, facts)

    async with (
        served_by(pour_or_echo, mode, destination, tmp_path) as (proxy, _lab),
        data_connection(proxy),
    ):
        await until(lambda: bool(poured))
        with trio.fail_after(PATIENCE):
            async with data_connection(proxy) as stream, trio.open_nursery() as nursery:
                nursery.start_soon(send, stream, blob[:MEBIBYTE])
                await receive(stream, blob[:MEBIBYTE])
