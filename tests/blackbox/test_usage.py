"""What the command says when it is not told what it needs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import COMMAND, PATIENCE, Run

from dbproxy._version import __version__

FIRST_MOMENTS = """
import os, sys, threading, time
moment, number = float(sys.argv[1]), int(sys.argv[2])
def strike():
    while "dbproxy.cli" not in sys.modules:
        time.sleep(0.001)
    time.sleep(moment)
    os.kill(os.getpid(), number)
sys.argv = ["dbproxy", "db", "--help"]
from dbproxy.__main__ import main
threading.Thread(target=strike, daemon=True).start()
main()
"""
"""Runs the command and, while it loads, sends itself a signal."""


def test_the_version_is_that_of_the_package(run: Run) -> None:
    outcome = run("--version")
    assert (outcome.status, outcome.out, outcome.err) == (0, f"dbproxy {__version__}\n", "")


def test_the_module_runs_like_the_command() -> None:
    module = subprocess.run(
        [sys.executable, "-m", "dbproxy", "--version"], capture_output=True, text=True, check=True
    )
    assert module.stdout == f"dbproxy {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["dbproxy demo", "--destination-dir", "DBPROXY_PROXY", "Exit status", "lab"]),
        (["db", "--help"], ["--tunnel", "DBPROXY_SERVICE", "SIGHUP", "--destination-dir"]),
        (["start", "--help"], ["database-tunnel", "DBPROXY_CONFIG", "SIGHUP", "--format"]),
        (["lab", "--help"], ["Usage: dbproxy lab"]),
        (["demo", "--help"], ["Usage: dbproxy demo", "--keep"]),
    ],
)
def test_help_is_on_standard_output(run: Run, arguments: list[str], words: list[str]) -> None:
    outcome = run(*arguments)
    assert (outcome.status, outcome.err) == (0, "")
    for word in words:
        assert word in outcome.out


def test_help_for_a_reader_who_has_gone_away_ends_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as broken:
        process = subprocess.run(
            [COMMAND, "db", "--help"], stdout=broken, stderr=subprocess.PIPE, check=False
        )
    assert process.stderr == b""
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--version"], ["db", "--help"], ["explain"], ["demo"]])
def test_output_that_cannot_be_written_is_one_sentence(
    arguments: list[str], unbuffered: str
) -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [COMMAND, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    sentence = "dbproxy: error: cannot write to standard output: No space left on device\n"
    assert (process.returncode, process.stderr) == (1, sentence)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_error_that_cannot_be_told_keeps_its_exit_status(unbuffered: str) -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [COMMAND, "db", "--port=many"],
            stdout=subprocess.PIPE,
            stderr=full,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    assert (process.returncode, process.stdout) == (2, b"")


@pytest.mark.parametrize("moment", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_first_moments_ends_it_without_a_word(
    number: signal.Signals, moment: float
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", FIRST_MOMENTS, str(moment), str(int(number))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    _out, err = process.communicate(timeout=PATIENCE)
    assert err.strip() == b""
    assert process.returncode in {0, -number, 128 + number}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["db", "--tunnel", "--terminate"],
            "--tunnel and --terminate contradict each other: give one of them",
        ),
        (["db", "--prot=1"], "no such option --prot; did you mean --port?"),
        (["db", "--port=70000"], "--port: `70000` is not a port: give 0 to 65535"),
        (
            ["db", "--drain-timeout=later"],
            "--drain-timeout: `later` is not a duration: give for example 500ms, 10s, 1m30s or 2.5",
        ),
        (["db", "one", "two"], "got unexpected extra argument (two)"),
        (["nix"], "no such command 'nix'"),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_status_2(
    run: Run, arguments: list[str], sentence: str
) -> None:
    outcome = run(*arguments)
    assert outcome.status == 2
    assert outcome.out == ""
    first, next_step = outcome.err.splitlines()
    assert first == f"dbproxy: error: {sentence} [usage]"
    assert "--help" in next_step


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_an_error_on_a_terminal_is_coloured_unless_no_color_is_set(
    no_color: str, coloured: bool
) -> None:
    ours, theirs = os.openpty()
    environment = os.environ | {"NO_COLOR": no_color, "TERM": "xterm"}
    with os.fdopen(ours, "rb", buffering=0) as terminal, os.fdopen(theirs, "wb") as far_end:
        process = subprocess.run(
            [COMMAND, "nix"], stdout=far_end, stderr=far_end, env=environment, check=False
        )
        text = terminal.read(65536)
    assert process.returncode == 2
    assert b"no such command 'nix'" in text
    assert (b"\x1b" in text) is coloured


def test_without_a_destination_the_next_step_names_the_options(run: Run, tmp_path: Path) -> None:
    empty = tmp_path / "tbot.yaml"
    empty.write_text("version: v2\n")
    assert run("db", "--config", empty).status == 1
    outcome = run("db", "--proxy=127.0.0.1:1", env={"DBPROXY_CONFIG": str(empty)})
    assert outcome.status == 1
    assert "[destination-not-found]" in outcome.error
    assert "--destination-dir" in outcome.err


def test_without_a_proxy_the_next_step_names_the_option(run: Run, destination: Path) -> None:
    outcome = run("db", "--destination-dir", destination)
    assert outcome.status == 2
    assert outcome.error.endswith("[usage]")
    assert "--proxy" in outcome.err


@pytest.mark.parametrize("uri", ["tcp://0.0.0.0:0", "tcp://[::]:0", "tcp://192.0.2.1:5432"])
def test_other_hosts_are_not_let_in_unasked(run: Run, destination: Path, uri: str) -> None:
    outcome = run("db", "--destination-dir", destination, "--proxy=127.0.0.1:1", f"--listen={uri}")
    assert outcome.status == 2
    assert uri in outcome.error
    assert "--unsafe-listen-anywhere" in outcome.err


@pytest.mark.parametrize("uri", ["udp://127.0.0.1:1", "127.0.0.1", "unix://", "tcp://:1"])
def test_an_address_that_is_none_is_named(run: Run, destination: Path, uri: str) -> None:
    outcome = run("db", "--destination-dir", destination, "--proxy=127.0.0.1:1", f"--listen={uri}")
    assert outcome.status == 2
    assert uri in outcome.error
