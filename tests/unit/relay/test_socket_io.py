"""Sockets that are used without giving the turn away: connecting, and what is on its way."""

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import trio
import trio.testing
from lab_client import until
from loopback import no_descriptor_left
from stream_ends import socket_pair, tcp_pair

from dbproxy.relay import bytes_on_their_way, connect_now


@pytest.fixture(autouse=True)
def _no_descriptor_left() -> Iterator[None]:
    with no_descriptor_left():
        yield


@contextmanager
def listening(backlog: int = 8) -> Iterator[tuple[socket.socket, int]]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(backlog)
        yield listener, listener.getsockname()[1]


class TestConnecting:
    """To IP addresses."""

    async def test_what_is_connected_carries_bytes(self) -> None:
        with listening() as (listener, port):
            stream = await connect_now(socket.AF_INET, "127.0.0.1", port)
            accepted, name = listener.accept()
            with accepted:
                assert name == stream.socket.getsockname()
                accepted.sendall(b"hello")
                async with stream:
                    assert await stream.receive_some() == b"hello"
                    assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    @pytest.mark.skipif(sys.platform != "linux", reason="loopback may be slower elsewhere")
    async def test_over_loopback_nobody_waits(self) -> None:
        with listening() as (_listener, port):
            with trio.testing.assert_no_checkpoints():
                stream = await connect_now(socket.AF_INET, "127.0.0.1", port)
            stream.socket.close()

    async def test_a_refusal_says_so_and_leaves_no_socket(self) -> None:
        with listening() as (_listener, port):
            pass
        with pytest.raises(ConnectionRefusedError) as caught:
            await connect_now(socket.AF_INET, "127.0.0.1", port)
        assert caught.value.errno == errno.ECONNREFUSED
        assert caught.value.strerror == "Connection refused"

    async def test_what_takes_its_time_is_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As to hosts that are far away, which loopback is not."""

        class FarAway(socket.socket):
            def connect_ex(self, address: Any) -> int:
                outcome = super().connect_ex(address)
                return errno.EALREADY if outcome in {0, errno.EISCONN} else outcome

        with listening() as (listener, port):
            monkeypatch.setattr(socket, "socket", FarAway)
            stream = await connect_now(socket.AF_INET, "127.0.0.1", port)
            accepted, _name = listener.accept()
            with accepted:
                accepted.sendall(b"hello")
                async with stream:
                    assert await stream.receive_some() == b"hello"

    async def test_where_a_second_try_tells_nothing_the_reason_is_the_first_ones(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Elsewhere(socket.socket):
            tries = iter([errno.EINPROGRESS, errno.EINVAL])

            def connect_ex(self, address: object) -> int:
                return next(self.tries)

            def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
                assert option == socket.SO_ERROR
                return errno.ECONNREFUSED

        monkeypatch.setattr(socket, "socket", Elsewhere)
        with pytest.raises(ConnectionRefusedError):
            await connect_now(socket.AF_INET, "127.0.0.1", 1)

    async def test_an_address_of_another_family_is_an_error_and_leaves_no_socket(self) -> None:
        with pytest.raises(OSError, match="family"):
            await connect_now(socket.AF_INET, "::1", 1)

    @pytest.mark.skipif(sys.platform != "linux", reason="a full queue is answered elsewhere")
    async def test_who_waits_too_long_gives_up_and_leaves_no_socket(
        self, autojump_clock: trio.testing.MockClock
    ) -> None:
        with listening(0) as (_listener, port), ExitStack() as stack:
            queued = stack.enter_context(socket.socket())
            queued.connect(("127.0.0.1", port))
            with pytest.raises(trio.TooSlowError):
                await connect_now(socket.AF_INET, "127.0.0.1", port, limit=7)
        assert trio.current_time() >= 7

    @pytest.mark.skipif(sys.platform != "linux", reason="a full queue is answered elsewhere")
    async def test_who_waits_can_be_cancelled_and_leaves_no_socket(self) -> None:
        with listening(0) as (_listener, port), ExitStack() as stack:
            queued = stack.enter_context(socket.socket())
            queued.connect(("127.0.0.1", port))  # there is no room for another one
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect_now, socket.AF_INET, "127.0.0.1", port)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()


class TestOnTheirWay:
    """How much was sent that has not arrived."""

    async def test_what_does_not_fit_into_the_peers_system_is_on_its_way_until_it_is_read(
        self,
    ) -> None:
        ours, peer = tcp_pair()
        async with ours, peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await ours.send_all(bytes(60_000))
            await trio.testing.wait_all_tasks_blocked()
            assert 0 < bytes_on_their_way(ours) <= 60_000
            received = 0
            while received < 60_000:
                received += len(await peer.receive_some())
            await until(lambda: bytes_on_their_way(ours) == 0)

    async def test_where_the_system_does_not_tell_it_is_something(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_args: object) -> None:
            raise OSError(errno.ENOTTY, "not for sockets")

        monkeypatch.setattr("dbproxy.relay.socket_io.ioctl", refuse)
        ours, peer = socket_pair()
        async with ours, peer:
            assert bytes_on_their_way(ours) == 1
