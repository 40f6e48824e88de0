"""What is measured of a process tree, and how programs are spoken to."""

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from comparison.processes import BenchError, Running, launch
from comparison.programs import Conversation

BUSY = "import time\nend = time.process_time() + 0.1\nwhile time.process_time() < end: pass\n"
WAIT = "import time\ntime.sleep(60)\n"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Running]]:
    """Those that a test has started with `start`; stopped at the end."""
    running: list[Running] = []
    yield running
    for one in running:
        one.stop()


def start(started: list[Running], directory: Path, code: str) -> Running:
    one = launch("program", [sys.executable, "-c", code], directory)
    started.append(one)
    return one


def test_processor_time_is_that_of_the_whole_tree_with_children_that_have_ended(
    started: list[Running], tmp_path: Path
) -> None:
    code = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {BUSY!r}])\n"
        f"child = subprocess.Popen([sys.executable, '-c', {BUSY + WAIT!r}])\n{BUSY}"
        f"print('done', flush=True)\n{WAIT}"
    )
    one = start(started, tmp_path, code)
    assert one.wait_for_output() == "done"
    deadline = time.monotonic() + 10
    while (used := one.cpu_seconds()) < 0.29 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert 0.29 <= used < 5
    alone = psutil.Process(one.process.pid).memory_info().rss
    assert one.rss_bytes() > 1.5 * alone


def test_a_port_is_waited_for_without_connecting(started: list[Running], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = (
        "import socket, time\ntime.sleep(0.1)\n"
        f"server = socket.create_server(('127.0.0.1', {port}))\n"
        f"server.settimeout(0.3)\n"
        "try:\n    server.accept()\n    print('touched', flush=True)\n"
        f"except TimeoutError:\n    print('untouched', flush=True)\n{WAIT}"
    )
    one = start(started, tmp_path, code)
    one.wait_until_listening(port)
    assert one.wait_for_output() == "untouched"


def test_one_that_ends_is_reported_with_the_end_of_its_log(
    started: list[Running], tmp_path: Path
) -> None:
    one = start(started, tmp_path, "raise SystemExit('no such option')")
    with pytest.raises(BenchError, match="no such option"):
        one.wait_until_listening(1)


def test_stopping_ends_the_children_too(started: list[Running], tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {WAIT!r}])\n"
        f"print(child.pid, flush=True)\n{WAIT}"
    )
    one = start(started, tmp_path, code)
    child = psutil.Process(int(one.wait_for_output()))
    one.stop()
    assert psutil.wait_procs([child], timeout=5)[0] == [child]


def talk(code: str, timeout: float | None = None) -> Conversation:
    return Conversation([sys.executable, "-c", code], timeout)


def test_a_conversation_is_lines_there_and_json_back() -> None:
    code = (
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    print(json.dumps({'said': line.strip()}), flush=True)\n"
    )
    with talk(code) as program:
        assert program.ask("tickets off") == {"said": "tickets off"}
        assert program.ask("") == {"said": ""}


def test_an_error_that_the_program_reports_is_raised() -> None:
    with (
        talk('print(\'{"event": "error", "error": "refused"}\')') as program,
        pytest.raises(BenchError, match="refused"),
    ):
        program.hear()


def test_an_end_that_comes_too_early_is_raised_with_the_last_words() -> None:
    with (
        talk("raise SystemExit('out of files')") as program,
        pytest.raises(BenchError, match="out of files"),
    ):
        program.hear()


def test_a_program_that_hangs_is_ended() -> None:
    with talk(WAIT, timeout=0.2) as program, pytest.raises(BenchError, match="took too long"):
        program.hear()
