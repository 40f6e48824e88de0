import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dbproxy.ops.log_writer import LogWriter, log_writer

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
