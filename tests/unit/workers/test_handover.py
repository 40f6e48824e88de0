"""What a worker is given when it begins, and what is no worker."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator

import pytest

from dbproxy import __version__
from dbproxy.errors import UsageError
from dbproxy.workers.beginning import HANDOVER
from dbproxy.workers.handover import Handover, above_standard, open_log_lock


@pytest.fixture
def descriptor() -> Iterator[int]:
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    yield reader
    os.close(reader)
    os.close(writer)


def handover(descriptor: int, version: str = __version__) -> Handover:
    return Handover(
        version=version, worker=3, listener=descriptor, channel=descriptor, log_lock=None
    )


def test_a_worker_finds_what_was_given_once(descriptor: int) -> None:
    given = handover(descriptor)
    environ = {"OTHER": "kept"} | given.environment()
    assert Handover.taken_from(environ) == given
    assert environ == {"OTHER": "kept"}
    assert Handover.taken_from(environ) is None


def test_nobody_inherits_it_any_further(descriptor: int) -> None:
    Handover.taken_from(handover(descriptor).environment())
    assert not os.get_inheritable(descriptor)


def test_the_log_lock_is_inherited_where_there_is_a_log() -> None:
    given = Handover(version="1", worker=1, listener=3, channel=4, log_lock=5)
    assert given.descriptors() == (3, 4, 5)
    assert handover(7).descriptors() == (7, 7)


def test_a_command_that_has_been_replaced_is_named(descriptor: int) -> None:
    environ = handover(descriptor, version="0.0.1").environment()
    with pytest.raises(UsageError, match=r"dbproxy 0\.0\.1 is running") as caught:
        Handover.taken_from(environ)
    assert "again" in caught.value.next_step


def test_one_of_another_version_may_look_different() -> None:
    environ = {HANDOVER: json.dumps({"version": "99.0", "something": "new"})}
    with pytest.raises(UsageError, match=r"99\.0"):
        Handover.taken_from(environ)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "null",
        "[]",
        "{}",
        "[" * 100_000,
        json.dumps({"version": __version__}),
        json.dumps({"version": __version__, "worker": 1, "listener": 3, "channel": 4, "more": 1}),
        handover(1_000_000).environment()[HANDOVER],
    ],
)
def test_what_no_supervisor_has_set_is_a_mistake_of_whoever_did(text: str) -> None:
    with pytest.raises(UsageError, match=HANDOVER) as caught:
        Handover.taken_from({HANDOVER: text})
    assert "--workers" in caught.value.next_step


def test_nothing_in_the_environment_is_text_but_the_version(descriptor: int) -> None:
    values = json.loads(handover(descriptor).environment()[HANDOVER])
    assert values.pop("version") == __version__
    assert all(value is None or isinstance(value, int) for value in values.values())


def test_a_socket_is_moved_above_the_standard_descriptors() -> None:
    one, other = socket.socketpair()
    with other, above_standard(one) as moved:
        assert one.fileno() == -1
        assert moved.fileno() >= 3
        assert not os.get_inheritable(moved.fileno())
        moved.send(b"x")
        assert other.recv(1) == b"x"


def test_the_log_lock_can_be_locked() -> None:
    lock = open_log_lock()
    try:
        assert lock >= 3
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(lock)


def test_without_files_in_memory_the_log_lock_is_one_without_a_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    test_the_log_lock_can_be_locked()
