import sys
from collections.abc import Callable

import click
import pytest

from dbproxy.cli.errors import report_bug, run
from dbproxy.cli.invocation import Invocation
from dbproxy.errors import Code, IdentityError, ListenError, UsageError

IN_USE = ListenError(Code.ADDRESS_IN_USE, "127.0.0.1:5432 is in use")


def raising(error: BaseException) -> click.Command:
    @click.command
    def fail() -> None:
        raise error

    return fail


def outcome(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    status = run(raising(error), [], Invocation())
    output = capsys.readouterr()
    assert output.out == ""
    return status, output.err.splitlines()


def test_a_foreseen_error_is_two_lines_and_its_exit_status(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert outcome(IN_USE, capsys) == (
        1,
        [
            "dbproxy: error: 127.0.0.1:5432 is in use [address-in-use]",
            "Choose another --port, or leave it out for a free one.",
        ],
    )


def test_the_next_step_of_the_case_beats_that_of_the_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = IdentityError(Code.KEY_MISMATCH, "they differ", next_step="Wait.")
    assert outcome(error, capsys)[1] == ["dbproxy: error: they differ [key-mismatch]", "Wait."]


def test_contradicting_settings_exit_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = outcome(UsageError("a and b contradict each other"), capsys)
    assert status == 2
    assert lines[0] == "dbproxy: error: a and b contradict each other [usage]"


def test_an_error_out_of_a_nursery_is_reported_like_any_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    group = ExceptionGroup("outer", [ExceptionGroup("inner", [IN_USE])])
    assert outcome(group, capsys) == outcome(IN_USE, capsys)


def test_a_click_error_out_of_a_nursery_is_reported_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    group = ExceptionGroup("", [click.ClickException("no room for the start message")])
    assert outcome(group, capsys) == (1, ["dbproxy: error: no room for the start message"])


def test_a_surprise_in_a_group_is_not_hidden_by_a_foreseen_error() -> None:
    group = ExceptionGroup("", [IN_USE, ZeroDivisionError("division by zero")])
    with pytest.raises(ExceptionGroup) as caught:
        run(raising(group), [], Invocation())
    assert caught.value is group


def test_an_interrupt_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = outcome(KeyboardInterrupt(), capsys)
    assert status == 130
    assert "".join(lines) == ""


def test_an_interrupt_out_of_a_nursery_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    group = BaseExceptionGroup("", [KeyboardInterrupt()])
    assert outcome(group, capsys) == (130, [])


def test_unprintable_characters_of_a_message_are_escaped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = IdentityError(Code.IDENTITY_MISSING, "no such directory: /tmp/\x1b[31mred\x07")
    assert "/tmp/\\x1b[31mred\\x07" in outcome(error, capsys)[1][0]


def test_with_standard_error_closed_the_complaint_does_not_end_up_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert run(raising(IN_USE), [], Invocation()) == 1
    assert capsys.readouterr() == ("", "")


def test_without_arguments_a_group_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    @click.group
    def group() -> None:
        """All commands."""

    assert run(group, [], Invocation()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("Usage: dbproxy")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--tunel"], "no such option --tunel; did you mean --tunnel?"),
        (["--xyz"], "no such option --xyz"),
        (["-x"], "no such option -x"),
        (["one", "two"], "got unexpected extra arguments (one two)"),
    ],
)
def test_unknown_arguments_are_named(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    @click.command
    @click.option("--tunnel", is_flag=True)
    def command(*, tunnel: bool) -> None:
        raise AssertionError(tunnel)

    assert run(command, arguments, Invocation()) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"dbproxy: error: {sentence} [usage]",
        "See `dbproxy --help`.",
    ]


def test_a_commands_own_exit_status_is_kept() -> None:
    @click.command
    @click.pass_context
    def command(context: click.Context) -> None:
        context.exit(7)

    assert run(command, [], Invocation()) == 7


@pytest.fixture
def bug() -> BaseException:
    try:
        raise ExceptionGroup("tasks", [ZeroDivisionError("division by zero")])
    except ExceptionGroup as error:
        return error


Report = Callable[[Invocation], str]


@pytest.fixture
def report(bug: BaseException, capsys: pytest.CaptureFixture[str]) -> Report:
    def report(invocation: Invocation) -> str:
        report_bug(invocation, bug)
        return capsys.readouterr().err

    return report


def test_a_bug_says_that_it_is_one_without_a_traceback(report: Report) -> None:
    lines = report(Invocation()).splitlines()
    assert lines[0] == (
        "dbproxy: error: unexpected ZeroDivisionError: division by zero [internal-error]"
    )
    assert "report" in lines[1]
    assert "--debug" in lines[1]
    assert len(lines) == 2


def test_a_bug_shows_its_traceback_with_debug(report: Report) -> None:
    text = report(Invocation(debug=True))
    assert "Traceback" in text
    assert "[internal-error]" in text
    assert "--debug" not in text
