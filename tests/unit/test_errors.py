"""The table of problems is complete, and errors carry their row."""

import re

import pytest

from dbproxy.errors import (
    PROBLEMS,
    ClientError,
    Code,
    ConfigError,
    DBProxyError,
    Fault,
    IdentityError,
    ListenError,
    UpstreamError,
    UsageError,
)

every_code = pytest.mark.parametrize("code", Code)


def test_every_code_has_a_row_and_every_row_a_code() -> None:
    assert set(PROBLEMS) == set(Code)


@every_code
def test_a_code_is_a_word_for_logs_and_searches(code: Code) -> None:
    assert re.fullmatch("[a-z]+(-[a-z]+)*", code)
    assert code == code.name.lower().replace("_", "-")


@every_code
def test_a_row_says_in_sentences_what_happened_and_what_to_do(code: Code) -> None:
    problem = PROBLEMS[code]
    for text in problem.meaning, problem.next_step, problem.client_hint:
        assert text[0].isupper() or text.startswith(("dbproxy", "tbot"))
        assert text.endswith((".", "?"))
        assert "  " not in text


@every_code
def test_only_usage_ends_with_status_2(code: Code) -> None:
    of_a_command = {Code.COMMAND_NOT_FOUND: 127, Code.COMMAND_UNUSABLE: 126}  # as shells have it
    expected = {Code.USAGE: 2} | of_a_command
    assert PROBLEMS[code].exit_status == expected.get(code, 1)


@pytest.mark.parametrize("code", [code for code in Code if code.startswith("client-")])
def test_what_a_client_does_is_the_clients_to_put_right(code: Code) -> None:
    assert PROBLEMS[code].fault is Fault.CLIENT


@pytest.mark.parametrize(
    "kind", [ConfigError, IdentityError, ListenError, UpstreamError, ClientError]
)
def test_an_error_has_its_row_and_the_rows_next_step(kind: type[DBProxyError]) -> None:
    error = kind(Code.CERTIFICATE_EXPIRED, "the certificate has expired")
    assert isinstance(error, DBProxyError)
    assert str(error) == error.message == "the certificate has expired"
    assert error.problem is PROBLEMS[Code.CERTIFICATE_EXPIRED]
    assert error.next_step == error.problem.next_step


@pytest.mark.parametrize("next_step", ["Do this.", ""])
def test_a_case_may_know_a_better_next_step_than_the_table(next_step: str) -> None:
    error = IdentityError(Code.CERTIFICATE_EXPIRED, "expired", next_step=next_step)
    assert error.next_step == next_step


def test_a_usage_error_needs_no_code() -> None:
    error = UsageError("give one of them", next_step="Choose.")
    assert (error.code, error.message, error.next_step) == (
        Code.USAGE,
        "give one of them",
        "Choose.",
    )
