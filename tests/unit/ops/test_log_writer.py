import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dbproxy.ops.log_writer import LogWriter, log_writer
from dbproxy.workers.handover import open_log_lock

PIPE_FULL = 1 << 20
"""More than a pipe holds, so that a writer blocks."""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        with suppress(OSError):  # the test has closed it
            os.close(descriptor)


def notice(count: int) -> str:
    return f"{count} dropped"


def test_lines_arrive_in_order_and_complete_when_the_block_ends(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file, log_writer(file.fileno(), notice) as writer:
        for number in range(1000):
            writer.write(f"line {number}")
    assert log.read_text().splitlines() == [f"line {number}" for number in range(1000)]


def test_the_descriptor_stays_open(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        with log_writer(file.fileno(), notice) as writer:
            writer.write("one")
        file.write(b"two\n")
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


def test_a_reader_who_has_stopped_costs_lines_and_no_time(pipe: tuple[int, int]) -> None:
    reader, writer_end = pipe
    writer = LogWriter(writer_end, notice, capacity=10)
    writer.write("x" * PIPE_FULL)
    os.read(reader, 1)  # the thread writes now, and the pipe has no room for all of it
    for number in range(100):
        writer.write(f"line {number}")
    received = read_until(reader, b" dropped\n")
    writer.close()
    _, *kept, lost = received.decode().splitlines()
    assert kept == [f"line {number}" for number in range(10)]
    assert lost == "90 dropped"


def read_until(reader: int, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        received += os.read(reader, 1 << 16)
    return received


def test_the_end_does_not_wait_forever_for_a_reader_who_has_stopped(
    pipe: tuple[int, int],
) -> None:
    reader, writer_end = pipe
    writer = LogWriter(writer_end, notice)
    writer.write("x" * PIPE_FULL)
    writer.close(patience=0.01)
    os.close(reader)  # the thread's write fails now, and the thread ends
    writer.close(patience=5)
    assert not writer._thread.is_alive()


def test_a_reader_who_has_gone_away_is_no_error(pipe: tuple[int, int]) -> None:
    reader, writer_end = pipe
    os.close(reader)
    writer = LogWriter(writer_end, notice)
    for _ in range(100):
        writer.write("line")
    writer.close(patience=5)
    assert not writer._thread.is_alive()


def test_a_full_queue_does_not_keep_the_thread_alive(pipe: tuple[int, int]) -> None:
    reader, writer_end = pipe
    writer = LogWriter(writer_end, notice, capacity=2)
    writer.write("x" * PIPE_FULL)
    for _ in range(10):
        writer.write("line")
    writer.close(patience=0.01)
    os.close(reader)
    writer.close(patience=5)
    assert not writer._thread.is_alive()


def test_text_that_is_not_unicode_is_written_escaped(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file, log_writer(file.fileno(), notice) as writer:
        writer.write("file \udcff")
    assert log.read_bytes() == b"file \\udcff\n"


WRITERS, LINES, LENGTH = 3, 60, 50_000
"""Lines far longer than the 4096 bytes that a pipe keeps together."""

WRITE = """
import sys
from dbproxy.ops.log_writer import log_writer
lock, letter = int(sys.argv[1]), sys.argv[2]
with log_writer(1, lambda count: f"{count} dropped", lock=lock) as writer:
    for _ in range(int(sys.argv[3])):
        writer.write(letter * int(sys.argv[4]))
"""


def test_lines_of_several_processes_stay_whole_however_long_they_are(
    pipe: tuple[int, int],
) -> None:
    reader, writer_end = pipe
    lock = open_log_lock()
    command = [sys.executable, "-c", WRITE, str(lock)]
    processes = [
        subprocess.Popen(
            [*command, letter, str(LINES), str(LENGTH)], stdout=writer_end, pass_fds=[lock]
        )
        for letter in "abc"
    ]
    os.close(writer_end)
    os.close(lock)
    with open(reader, closefd=False) as received:
        lines = received.read().splitlines()
    assert [process.wait(10) for process in processes] == [0] * WRITERS
    assert Counter(lines) == {letter * LENGTH: LINES for letter in "abc"}


def test_a_process_that_is_killed_while_it_holds_the_lock_holds_up_nobody(
    tmp_path: Path,
) -> None:
    lock = open_log_lock()
    hold = "import fcntl, sys; fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX); print(); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", hold, str(lock)],
        pass_fds=[lock],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process, (tmp_path / "log").open("wb") as file:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        writer = LogWriter(file.fileno(), notice, lock=lock)
        writer.write("line")
        writer.close(patience=0.01)
        assert (tmp_path / "log").read_bytes() == b""
        process.kill()
        writer.close(patience=5)
    os.close(lock)
    assert (tmp_path / "log").read_bytes() == b"line\n"
