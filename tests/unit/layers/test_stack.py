"""Layers as one: order, ends, and a stack without layers."""

from collections.abc import Callable

import pytest

from dbproxy.layers import Layer, LayerStack, PingLayer, TruncatedError, WebSocketLayer
from dbproxy.layers.base import ByteData


class Bracket(Layer):
    """Sends `<…>` around what is sent, takes the signs off what is received, and keeps a log."""

    def __init__(
        self, signs: str, log: list[str] | None = None, *, announces_end: bool = True
    ) -> None:
        self._open, self._close = signs.encode()[:1], signs.encode()[1:]
        self._log = log if log is not None else []
        self._outgoing = b""
        self._ended = False
        self._announces_end = announces_end
        self.shaking = False

    @property
    def handshaking(self) -> bool:
        return self.shaking

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def announces_end(self) -> bool:
        return self._announces_end

    def start(self) -> None:
        self._note("start")

    def receive(self, data: ByteData) -> bytes:
        received = bytes(data)
        if received.endswith(b"$"):
            self._ended, received = True, received[:-1]
        return received.replace(self._open, b"").replace(self._close, b"")

    def receive_eof(self) -> None:
        self._note("eof")

    def send(self, data: ByteData) -> None:
        self._outgoing += self._open + bytes(data) + self._close

    def send_eof(self) -> None:
        self._note("send_eof")
        self._outgoing += b"$"

    def outgoing(self) -> bytes:
        outgoing, self._outgoing = self._outgoing, b""
        return outgoing

    def _note(self, what: str) -> None:
        self._log.append(f"{self._open.decode()} {what}")


def test_without_layers_bytes_pass_unchanged_and_in_order() -> None:
    stack = LayerStack()
    stack.start()
    assert not stack.handshaking
    assert stack.receive(bytearray(b"down")) == b"down"
    stack.send(b"one")
    stack.send(memoryview(b"two"))
    assert stack.outgoing() == b"onetwo"
    assert stack.outgoing() == b""


def test_without_layers_a_sent_buffer_may_be_reused_at_once() -> None:
    stack = LayerStack()
    buffer = bytearray(b"good")
    stack.send(buffer)
    buffer[:] = b"evil"
    assert stack.outgoing() == b"good"


def test_without_layers_the_end_is_the_transports_business() -> None:
    stack = LayerStack()
    assert not stack.announces_end
    stack.send_eof()
    assert stack.outgoing() == b""
    assert not stack.ended
    stack.receive_eof()
    assert stack.ended


def test_the_first_layer_is_at_the_wire() -> None:
    stack = LayerStack(Bracket("<>"), Bracket("()"))
    assert stack.announces_end
    stack.send(b"x")
    assert stack.outgoing() == b"<(x)>"
    assert stack.receive(b"<(y)>") == b"y"


def test_a_pushed_layer_comes_on_top_and_is_the_one_that_is_started() -> None:
    log: list[str] = []
    stack = LayerStack(Bracket("<>", log))
    stack.start()
    stack.push(Bracket("()", log))
    stack.start()
    assert log == ["< start", "( start"]
    stack.send(b"x")
    assert stack.outgoing() == b"<(x)>"


def test_what_a_lower_layer_has_to_say_keeps_its_place() -> None:
    lower = Bracket("<>")
    stack = LayerStack(lower, Bracket("()"))
    stack.send(b"1")
    assert stack.outgoing() == b"<(1)>"
    lower.send(b"own")
    stack.send(b"2")
    assert stack.outgoing() == b"<own><(2)>"


def test_only_the_topmost_layer_that_can_tell_is_told_about_the_end() -> None:
    log: list[str] = []
    stack = LayerStack(Bracket("<>", log), Bracket("()", log))
    stack.send(b"x")
    stack.send_eof()
    assert log == ["( send_eof"]
    assert stack.outgoing() == b"<(x)><$>"


def test_the_end_comes_behind_all_bytes_of_layers_that_cannot_tell_it() -> None:
    log: list[str] = []
    stack = LayerStack(
        Bracket("<>", log), Bracket("()", log), Bracket("[]", log, announces_end=False)
    )
    stack.send(b"x")
    stack.send_eof()
    assert log == ["( send_eof"]
    assert stack.outgoing() == b"<([x])><$>"


def test_layers_that_cannot_tell_the_end_leave_it_to_the_transport() -> None:
    stack = LayerStack(Bracket("<>", announces_end=False), PingLayer(), WebSocketLayer())
    assert not stack.announces_end
    stack.send_eof()
    assert stack.outgoing() == b""


@pytest.mark.parametrize("make", [lambda: Bracket("<>"), PingLayer])
def test_a_handshake_of_any_layer_is_a_handshake_of_the_stack(make: Callable[[], Layer]) -> None:
    shaking = Bracket("()")
    stack = LayerStack(make(), shaking, make())
    assert not stack.handshaking
    shaking.shaking = True
    assert stack.handshaking


def test_the_end_of_any_layer_is_the_end_of_the_stack() -> None:
    stack = LayerStack(Bracket("<>"), Bracket("()"))
    assert stack.receive(b"<(last)>$") == b"last"
    assert stack.ended


def test_every_layer_is_asked_whether_the_wire_may_end() -> None:
    log: list[str] = []
    stack = LayerStack(Bracket("<>", log), Bracket("()", log))
    stack.receive_eof()
    assert log == ["< eof", "( eof"]


def test_below_a_layer_that_has_ended_no_layer_needs_to_have_ended() -> None:
    log: list[str] = []
    outer, middle, inner = Bracket("<>", log), Bracket("()", log), Bracket("[]", log)
    stack = LayerStack(outer, middle, inner)
    assert middle.receive(b"(last)$") == b"last"
    assert stack.ended
    stack.receive_eof()
    assert log == ["( eof", "[ eof"]


def test_a_frame_cut_short_inside_a_layer_that_ended_well_is_truncation() -> None:
    stack = LayerStack(Bracket("<>"), PingLayer())
    assert stack.receive(b"\0\0\0\x05abc$") == b"abc"
    assert stack.ended
    with pytest.raises(TruncatedError):
        stack.receive_eof()
