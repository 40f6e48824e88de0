"""How the demo tells what happens."""

import io

import pytest
import trio
from rich.console import Console

from dbproxy.lab.demo.narrator import Narrator, StepFailed
from dbproxy.lab.errors import LabError


@pytest.fixture
def paper() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def say(paper: io.StringIO) -> Narrator:
    return Narrator(Console(file=paper, width=40))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LabError("no such role"), "no such role"),
        (PermissionError(13, "denied"), "[Errno 13] denied"),
        (trio.TooSlowError(), "it took too long"),
        (ExceptionGroup("", [ExceptionGroup("", [LabError("deep")])]), "deep"),
    ],
)
def test_a_step_that_fails_says_which_and_why(say: Narrator, error: Exception, reason: str) -> None:
    with pytest.raises(StepFailed) as caught, say.step("A role"):
        raise error
    assert (caught.value.step, caught.value.reason) == ("A role", reason)


@pytest.mark.parametrize("bug", [KeyError("x"), ExceptionGroup("", [LabError("a"), KeyError("x")])])
def test_a_mistake_of_the_demo_is_not_told_as_a_failed_step(say: Narrator, bug: Exception) -> None:
    with pytest.raises(type(bug)), say.step("A role"):
        raise bug


def test_steps_are_numbered_and_lines_are_never_wrapped(say: Narrator, paper: io.StringIO) -> None:
    command = "dbproxy db " + "x" * 100
    for title in ("One", "Two"):
        with say.step(title):
            say.command(command)
    assert paper.getvalue() == f"\n1. One\n   $ {command}\n\n2. Two\n   $ {command}\n"


def test_text_that_looks_like_markup_stays_as_it_is(say: Narrator, paper: io.StringIO) -> None:
    say.quote(["FATAL: no [client-not-tls] :warning:"])
    assert paper.getvalue() == "   | FATAL: no [client-not-tls] :warning:\n"


def test_a_terminal_without_unicode_gets_words(capsys: pytest.CaptureFixture[str]) -> None:
    with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as ascii_only:
        say = Narrator(Console(file=ascii_only))
        say.done("ready")
        say.failed(LabError("broken"))
        ascii_only.flush()
        written = ascii_only.buffer
        assert isinstance(written, io.BytesIO)
        assert written.getvalue() == b"   ok ready\n   FAILED broken\n"
