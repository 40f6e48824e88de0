"""Answers on standard output, for terminals and for everything else."""

import pytest

from dbproxy.cli.console import Answer

LONG = "`dbproxy doctor` says what is wrong before a user finds out, and what to do next. " * 3


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """rich takes standard output for a terminal of 60 columns."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_prose_is_wrapped_and_indented(capsys: pytest.CaptureFixture[str]) -> None:
    Answer().prose(LONG, indent="  ", first="* ")
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("* `dbproxy")
    assert rest
    assert all(line.startswith("  ") and len(line) <= 100 for line in rest)


def test_a_line_is_never_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    Answer().line("x" * 500, ("y", "bold red"))
    assert capsys.readouterr().out == "x" * 500 + "y\n"


def test_what_looks_like_markup_or_control_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer()
    answer.line("[bold]:smile: \x1b[31m\x07")
    answer.prose("[link=x] \x9b")
    assert capsys.readouterr().out == "[bold]:smile: \\x1b[31m\\x07\n[link=x] \\x9b\n"


@pytest.mark.usefixtures("terminal")
def test_a_terminal_gets_colours_and_its_own_width(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer()
    answer.line(("failure", "bold red"), " it is")
    answer.prose(LONG)
    failure, *prose = capsys.readouterr().out.splitlines()
    assert failure == "\x1b[1;31mfailure\x1b[0m it is"
    assert prose[0].startswith("\x1b[36m`dbproxy doctor`\x1b[0m says")
    assert all(len(line) <= 60 + len("\x1b[36m\x1b[0m") for line in prose)


@pytest.mark.usefixtures("terminal")
def test_no_colours_where_they_are_not_wanted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    Answer().line(("failure", "red"))
    assert "31m" not in capsys.readouterr().out


@pytest.mark.usefixtures("terminal")
def test_a_very_narrow_terminal_is_no_obstacle(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1")
    Answer().prose("one two", indent=" " * 30)
    assert capsys.readouterr().out.split() == ["one", "two"]
