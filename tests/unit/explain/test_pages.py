"""Every code has a page, and the pages say what the code does."""

import shlex
from collections import Counter

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.cli import dbproxy
from dbproxy.errors import PROBLEMS, Code, ConfigError, UsageError
from dbproxy.explain import AREAS, find_code, page_of, sections
from dbproxy.explain.page import Sees
from dbproxy.protocols.postgres import PostgresPrologue
from dbproxy.protocols.wire.postgres import sqlstate_of
from dbproxy.settings import Mode

PAGES = {code: page for area in AREAS for code, page in area.pages.items()}
LOOKS = [look for page in PAGES.values() for look in page.looks]
COMMANDS = sorted({look.command for look in LOOKS})


def text_of(code: Code, title: str) -> str:
    return "\n".join(
        paragraph
        for section in sections(code)
        if section.title == title
        for paragraph in section.paragraphs
    )


def test_each_code_has_exactly_one_page() -> None:
    pages = Counter(code for area in AREAS for code in area.pages)
    assert pages == Counter(Code), "write a page for it in dbproxy/explain/"


def test_a_code_without_a_page_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(page_of.__globals__, "AREAS", ())
    with pytest.raises(AssertionError, match="key-mismatch"):
        page_of(Code.KEY_MISMATCH)


@pytest.mark.parametrize("code", Code)
def test_a_page_tells_more_than_the_table(code: Code) -> None:
    page = page_of(code)
    assert len(page.story.split()) > 25
    assert PROBLEMS[code].meaning not in " ".join(page.story.split())
    assert page.looks
    assert code not in page.related


@pytest.mark.parametrize("code", Code)
def test_a_page_goes_from_the_meaning_to_what_to_do(code: Code) -> None:
    titles = [section.title for section in sections(code)]
    assert titles[:5] == ["", "Put right by", "Next step", "What the client sees", "How to check"]
    assert PROBLEMS[code].meaning in text_of(code, "")
    assert PROBLEMS[code].next_step == text_of(code, "Next step")


@pytest.mark.parametrize("code", [code for code, page in PAGES.items() if page.sees.is_message])
def test_what_a_page_says_that_clients_see_is_what_they_are_sent(code: Code) -> None:
    prologue = PostgresPrologue(Mode.TUNNEL)
    prologue.receive(b"\0\0\0\x0e\0\x03\0\0user\0\0")
    sent = prologue.refusal(ConfigError(code, "MESSAGE"))[5:].decode()
    shown = text_of(code, "What the client sees")
    assert f"C{sqlstate_of(code)}\0" in sent
    assert f"SQLSTATE (PostgreSQL): {sqlstate_of(code)}" in shown
    message = next(field for field in sent.split("\0") if field.startswith("Mdbproxy"))[1:]
    assert f"`FATAL: {message.replace('MESSAGE', '…')}`" in shown
    assert f"`HINT: {PROBLEMS[code].client_hint}`" in shown


@pytest.mark.parametrize("code", [Code.USAGE, Code.KEY_MISMATCH, Code.INTERNAL_ERROR])
def test_no_sqlstate_is_named_where_the_client_gets_no_message(code: Code) -> None:
    assert "SQLSTATE" not in text_of(code, "What the client sees")


def test_each_way_to_notice_is_used() -> None:
    assert {page.sees for page in PAGES.values()} == set(Sees)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_in_a_page_is_one_that_a_shell_takes(command: str) -> None:
    words = shlex.split(command)
    while "=" in words[0]:
        del words[0]
    if words[0] == "dbproxy":
        result = CliRunner().invoke(dbproxy, [*words[1:], "--help"])
        assert result.exit_code == 0, result.output


def test_a_page_says_what_to_look_for_in_what_a_command_shows() -> None:
    assert all(look.shows and "\n" not in look.command + look.shows for look in LOOKS)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("key-mismatch", Code.KEY_MISMATCH),
        ("Key_Mismatch", Code.KEY_MISMATCH),
        ("[key-mismatch]", Code.KEY_MISMATCH),
        ("code=key-mismatch", Code.KEY_MISMATCH),
        ("key mismatch", Code.KEY_MISMATCH),
        ("dbproxy: error: [usage] is no host [key-mismatch]", Code.KEY_MISMATCH),
        ("FATAL:  dbproxy: no [client-not-tls]\nHINT:  Connect [::1]", Code.CLIENT_NOT_TLS),
    ],
)
def test_a_code_is_found_in_what_people_paste(text: str, code: Code) -> None:
    assert find_code(text) is code


@pytest.mark.parametrize(
    ("text", "near"),
    [("key-mismach", "key-mismatch"), ("certificate-expird", "certificate-expired")],
)
def test_an_unknown_code_suggests_the_nearest(text: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"{text}.*did you mean {near}") as caught:
        find_code(text)
    assert "dbproxy explain" in caught.value.next_step


@pytest.mark.parametrize("text", ["", "42P01", "\0\x1b", "zzzzzz"])
def test_nothing_is_suggested_for_what_resembles_nothing(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_code(text)
    assert "did you mean" not in caught.value.message


@given(st.text(max_size=60))
def test_any_text_is_a_code_or_refused(text: str) -> None:
    try:
        code = find_code(text)
    except UsageError:
        return
    assert code in text.lower().replace("_", "-").replace(" ", "-")


def test_the_pages_are_short_enough_to_be_read() -> None:
    longest = max(len(page.story.split()) for page in PAGES.values())
    assert longest < 150
