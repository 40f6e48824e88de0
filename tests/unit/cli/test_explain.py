import pytest

from dbproxy.cli import dbproxy
from dbproxy.cli.errors import run
from dbproxy.cli.invocation import Invocation
from dbproxy.errors import PROBLEMS, Code


def explain(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(dbproxy, ["explain", *arguments], Invocation()) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return output.out


@pytest.mark.parametrize("code", Code)
def test_a_page_is_printed_for_each_code(capsys: pytest.CaptureFixture[str], code: Code) -> None:
    page = explain(capsys, code)
    assert page.startswith(f"{code}\n")
    words = " ".join(page.split())
    assert PROBLEMS[code].meaning in words
    assert PROBLEMS[code].next_step in words


def test_the_list_names_each_code_once_under_its_area(capsys: pytest.CaptureFixture[str]) -> None:
    lines = explain(capsys).splitlines()
    named = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    assert sorted(named) == sorted(Code)
    assert lines.index("Clients") < next(i for i, it in enumerate(lines) if "client-not-tls" in it)


@pytest.mark.parametrize("arguments", [(), ("key-mismatch",)])
def test_what_is_not_a_terminal_gets_plain_text_of_moderate_width(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    lines = explain(capsys, *arguments).splitlines()
    assert max(map(len, lines)) <= 100
    assert not any("\x1b" in line or line != line.rstrip() for line in lines)


def test_commands_are_never_broken(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [line for line in explain(capsys, "alpn-not-supported").splitlines() if "$" in line]
    assert any("openssl s_client" in line and line.endswith("</dev/null") for line in commands)


def test_an_unknown_code_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(dbproxy, ["explain", "certificate-expird"], Invocation()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "did you mean certificate-expired? [usage]" in output.err
