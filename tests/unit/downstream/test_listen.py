"""Where to listen, and listening there."""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from cancelling import cancel_after
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.downstream import TCPAddress, UnixAddress, listen_address, open_listener
from dbproxy.errors import Code, ListenError, UsageError


class TestAddress:
    """What `--listen` and `--port` mean."""

    @pytest.mark.parametrize("port", [0, 12345])
    def test_a_port_alone_is_on_loopback(self, port: int) -> None:
        assert listen_address(None, port, anywhere=False) == TCPAddress("127.0.0.1", port)

    @pytest.mark.parametrize(
        ("uri", "address"),
        [
            ("tcp://127.0.0.1:5432", TCPAddress("127.0.0.1", 5432)),
            ("127.0.0.1:5432", TCPAddress("127.0.0.1", 5432)),
            ("tcp://127.1.2.3:0", TCPAddress("127.1.2.3", 0)),
            ("tcp://localhost:5432", TCPAddress("127.0.0.1", 5432)),
            ("localhost:5432", TCPAddress("127.0.0.1", 5432)),
            ("tcp://[::1]:5432", TCPAddress("::1", 5432)),
            ("[::1]:5432", TCPAddress("::1", 5432)),
            ("unix:///run/dbproxy/.s.PGSQL.5432", UnixAddress(Path("/run/dbproxy/.s.PGSQL.5432"))),
            ("unix:///tmp/a b%20c", UnixAddress(Path("/tmp/a b%20c"))),
        ],
    )
    def test_loopback_addresses_and_sockets_are_taken(
        self, uri: str, address: TCPAddress | UnixAddress
    ) -> None:
        assert listen_address(uri, 0, anywhere=False) == address

    @pytest.mark.parametrize(
        "host", ["0.0.0.0", "10.0.0.1", "[::]", "[2001:db8::1]", "[::ffff:10.0.0.1]"]
    )
    def test_what_other_hosts_can_reach_needs_a_second_word(self, host: str) -> None:
        with pytest.raises(UsageError, match="can be reached from other hosts") as caught:
            listen_address(f"tcp://{host}:5432", 0, anywhere=False)
        assert "--unsafe-listen-anywhere" in caught.value.next_step
        assert listen_address(f"tcp://{host}:5432", 0, anywhere=True) == TCPAddress(
            host.strip("[]"), 5432
        )

    def test_a_name_is_not_helped_by_letting_other_hosts_in(self) -> None:
        with pytest.raises(UsageError, match="cannot be resolved, or is not a loop") as caught:
            listen_address("tcp://nosuchhost:1", 0, anywhere=False)
        assert "nosuchhost" in caught.value.message
        assert "--unsafe-listen-anywhere" not in caught.value.next_step
        assert listen_address("example.com:1", 0, anywhere=True) == TCPAddress("example.com", 1)

    @pytest.mark.parametrize(
        "uri",
        [
            "",
            "5432",
            "127.0.0.1",
            "tcp://127.0.0.1",
            "tcp://:5432",
            "tcp://127.0.0.1:port",
            "tcp://127.0.0.1:-1",
            "tcp://127.0.0.1:65536",
            "tcp://127.0.0.1:5432/",
            "tcp://127.0.0.1:5432?x=1",
            "tcp://alice@127.0.0.1:5432",
            "udp://127.0.0.1:5432",
            "https://127.0.0.1:5432",
            "unix:",
            "unix://",
            "unix:///",
            "unix:/run/socket",
            "unix://run/socket",
            "unix:///run/socket?x",
            "unix:///run/socket#x",
            "[::1",
            "tcp://[::1:5432",
            "tcp://[nonsense]:5432",
        ],
    )
    @pytest.mark.parametrize("anywhere", [False, True])
    def test_anything_else_is_a_usage_error_that_shows_it(self, uri: str, anywhere: bool) -> None:
        with pytest.raises(UsageError, match="is not an address to listen on") as caught:
            listen_address(uri, 0, anywhere=anywhere)
        assert uri in caught.value.message

    @given(st.text())
    def test_any_text_is_an_address_or_a_usage_error(self, uri: str) -> None:
        try:
            address = listen_address(uri, 0, anywhere=True)
        except UsageError:
            return
        assert str(address)

    def test_addresses_are_shown_as_people_write_them(self) -> None:
        assert str(TCPAddress("127.0.0.1", 1)) == "127.0.0.1:1"
        assert str(TCPAddress("::1", 1)) == "[::1]:1"
        assert str(UnixAddress(Path("/run/x"))) == "unix:///run/x"


class TestTCP:
    """A TCP port."""

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    async def test_a_free_port_is_found_and_clients_can_connect(self, host: str) -> None:
        async with await open_listener(TCPAddress(host, 0)) as listener:
            bound_host, port = listener.socket.getsockname()[:2]
            assert bound_host == host
            assert port > 0
            async with (
                await trio.open_tcp_stream(host, port) as client,
                await listener.accept() as server,
            ):
                await client.send_all(b"x")
                assert await server.receive_some(1) == b"x"

    async def test_a_port_in_use_is_named(self) -> None:
        async with await open_listener(TCPAddress("127.0.0.1", 0)) as listener:
            port = listener.socket.getsockname()[1]
            with pytest.raises(ListenError) as caught:
                await open_listener(TCPAddress("127.0.0.1", port))
        assert caught.value.code is Code.ADDRESS_IN_USE
        assert f"127.0.0.1:{port}" in caught.value.message

    async def test_a_port_can_be_listened_on_again_at_once(self) -> None:
        async with await open_listener(TCPAddress("127.0.0.1", 0)) as listener:
            port = listener.socket.getsockname()[1]
            client = await trio.open_tcp_stream("127.0.0.1", port)
            server = await listener.accept()
            await server.aclose()  # the side that closes first keeps the port in TIME_WAIT
            await client.aclose()
        async with await open_listener(TCPAddress("127.0.0.1", port)):
            pass

    @pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
    async def test_an_address_of_another_host_is_a_failure_to_listen(self, host: str) -> None:
        with pytest.raises(ListenError) as caught:
            await open_listener(TCPAddress(host, 0))
        assert caught.value.code is Code.LISTEN_FAILED

    @pytest.mark.parametrize("host", ["a..b", "x" * 64])
    async def test_a_name_that_no_resolver_takes_is_a_failure_to_listen(self, host: str) -> None:
        with pytest.raises(ListenError) as caught:
            await open_listener(TCPAddress(host, 0))
        assert caught.value.code is Code.LISTEN_FAILED

    async def test_a_port_that_is_denied_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Denied(socket.socket):
            def bind(self, _name: object) -> None:
                raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(socket, "socket", Denied)
        with pytest.raises(ListenError, match=r"127\.0\.0\.1:80: Permission denied") as caught:
            await open_listener(TCPAddress("127.0.0.1", 80))
        assert caught.value.code is Code.LISTEN_DENIED

    @pytest.mark.parametrize("checkpoints", range(4))
    async def test_cancelled_it_leaves_no_socket(self, checkpoints: int) -> None:
        await cancel_after(checkpoints, lambda: open_listener(TCPAddress("127.0.0.1", 0)))


class TestUnix:
    """A socket in the file system."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "socket"

    @pytest.fixture(autouse=True, params=[0o000, 0o022, 0o777])
    def _umask(self, request: pytest.FixtureRequest) -> Iterator[None]:
        previous = os.umask(request.param)
        yield
        assert os.umask(previous) == request.param, "the umask is as it was"

    async def test_only_our_user_may_connect(self, path: Path) -> None:
        async with await open_listener(UnixAddress(path)):
            assert mode_of(path) == 0o600

    async def test_clients_can_connect(self, path: Path) -> None:
        async with (
            await open_listener(UnixAddress(path)) as listener,
            await trio.open_unix_socket(path) as client,
            await listener.accept() as server,
        ):
            await server.send_all(b"x")
            assert await client.receive_some(1) == b"x"

    async def test_a_socket_that_nobody_listens_on_any_more_is_replaced(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        async with await open_listener(UnixAddress(path)), await trio.open_unix_socket(path):
            pass

    async def test_a_socket_that_somebody_listens_on_is_not_replaced(self, path: Path) -> None:
        async with await open_listener(UnixAddress(path)) as listener:
            with pytest.raises(ListenError) as caught:
                await open_listener(UnixAddress(path))
            assert caught.value.code is Code.ADDRESS_IN_USE
            assert caught.value.next_step == "Choose another path with --listen."
            probe = await listener.accept()  # which the attempt has left
            await probe.aclose()
            async with await trio.open_unix_socket(path), await listener.accept():
                pass

    async def test_a_socket_with_a_full_queue_is_not_replaced(self, path: Path) -> None:
        with (
            socket.socket(socket.AF_UNIX) as busy,
            socket.socket(socket.AF_UNIX) as first,
            socket.socket(socket.AF_UNIX) as second,
        ):
            busy.bind(str(path))
            busy.listen(0)
            for client in first, second:
                client.setblocking(False)
                client.connect_ex(str(path))
            with pytest.raises(ListenError) as caught:
                await open_listener(UnixAddress(path))
        assert caught.value.code is Code.ADDRESS_IN_USE

    async def test_a_file_is_not_replaced(self, path: Path) -> None:
        write(path, "precious")
        with pytest.raises(ListenError) as caught:
            await open_listener(UnixAddress(path))
        assert caught.value.code is Code.ADDRESS_IN_USE
        assert caught.value.message.endswith(f"{path} exists and is not a socket")
        assert "--port" not in caught.value.next_step
        assert read(path) == "precious"

    async def test_a_directory_is_not_replaced(self, tmp_path: Path) -> None:
        with pytest.raises(ListenError) as caught:
            await open_listener(UnixAddress(tmp_path))
        assert caught.value.code is Code.ADDRESS_IN_USE

    async def test_a_path_in_a_directory_that_does_not_exist_is_named(self, path: Path) -> None:
        with pytest.raises(ListenError, match="No such file or directory") as caught:
            await open_listener(UnixAddress(path / "socket"))
        assert caught.value.code is Code.LISTEN_FAILED

    async def test_a_path_that_is_too_long_is_named(self, path: Path) -> None:
        with pytest.raises(ListenError, match="too long") as caught:
            await open_listener(UnixAddress(path.with_name("x" * 120)))
        assert caught.value.code is Code.LISTEN_FAILED


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write(path: Path, text: str) -> None:
    path.touch(0o600)
    path.write_text(text)


def read(path: Path) -> str:
    return path.read_text()
