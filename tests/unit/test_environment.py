"""Variables as text, read back by those whom they are written for."""

import io
import subprocess
from pathlib import Path

import dotenv
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbproxy.environment import as_dotenv, as_shell
from dbproxy.errors import UsageError

AWKWARD = {
    "EMPTY": "",
    "BLANKS": " two  words ",
    "QUOTE": "o'brien",
    "DOUBLE": 'say "hello"',
    "HASH": "a # b",
    "DOLLAR": "$HOME and `id`",
    "DOMAIN": "CORP\\alice",
    "URL": "postgresql://al%20ice@localhost:1/x?sslmode=verify-full&sslcert=%2Fid%2Ftlscert",
    "UNICODE": "größe",
    "BANG": "a!b~*?[c]",
}


def read_by_sh(text: str, names: list[str]) -> list[bytes]:
    """What a POSIX shell has in these variables when it has read the text."""
    shown = " ".join(f'"${{{name}-unset}}"' for name in names)
    script = f"{text}\nprintf '%s\\0' {shown}\n"
    done = subprocess.run(
        ["sh"], input=script.encode(errors="surrogateescape"), capture_output=True, check=True
    )
    return done.stdout.split(b"\0")[:-1]


def read_by_dotenv(text: str) -> dict[str, str | None]:
    return dotenv.dotenv_values(stream=io.StringIO(text))


def test_a_shell_reads_what_was_put_in() -> None:
    read = read_by_sh(as_shell(AWKWARD), list(AWKWARD))
    assert [value.decode() for value in read] == list(AWKWARD.values())


def test_a_shell_exports_what_it_reads() -> None:
    script = f"{as_shell({'A': 'x y'})}\nexec sh -c 'echo \"$A\"'"
    assert subprocess.check_output(["sh", "-c", script]) == b"x y\n"


def test_a_shell_forgets_what_must_not_be_set() -> None:
    text = "PGSERVICE=x; PGHOSTADDR=y\n" + as_shell({"PGHOST": "localhost"}, ["PGSERVICE", "NONE"])
    names = ["PGSERVICE", "PGHOSTADDR", "PGHOST"]
    assert read_by_sh(text, names) == [b"unset", b"y", b"localhost"]


anything = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@settings(max_examples=40, deadline=None)
@given(st.lists(anything, min_size=1, max_size=20))
def test_any_value_at_all_reaches_a_shell_unchanged(values: list[str]) -> None:
    variables = {f"V{number}": value for number, value in enumerate(values)}
    read = read_by_sh(as_shell(variables), list(variables))
    assert [value.decode() for value in read] == values


def test_a_file_name_that_is_no_text_reaches_a_shell_unchanged() -> None:
    name = b"/opt/\xff\xfe".decode(errors="surrogateescape")
    assert read_by_sh(as_shell({"FILE": name}), ["FILE"]) == [b"/opt/\xff\xfe"]


def test_dotenv_reads_what_was_put_in() -> None:
    assert read_by_dotenv(as_dotenv(AWKWARD)) == AWKWARD


def test_what_needs_no_quotes_has_none() -> None:
    """`docker run --env-file` takes quotes for a part of the value."""
    assert as_dotenv({"PGHOST": "localhost", "PGPORT": "1", "F": "/opt/machine-id/tlscert"}) == (
        "PGHOST=localhost\nPGPORT=1\nF=/opt/machine-id/tlscert"
    )


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.sampled_from(" abz\"'\\#$`{}=&\n\r\t!") | st.characters(codec="utf-8")))
def test_every_reader_reads_the_same_in_a_dotenv_file_or_the_value_is_refused(value: str) -> None:
    try:
        text = as_dotenv({"NAME": value, "AFTER": "x"})
    except UsageError:
        return
    assert read_by_dotenv(text) == {"NAME": value, "AFTER": "x"}
    # What shells and systemd read: quotes are all there is to undo.
    assigned = text.splitlines()[0].removeprefix("NAME=")
    quote = assigned[:1] if assigned[:1] in {"'", '"'} else ""
    inside = assigned.removeprefix(quote).removesuffix(quote)
    assert inside == value
    assert not quote or quote not in inside


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.sampled_from(" ab\"'\\#$`{}=&!*?;|<>()~\t")), min_size=1, max_size=20))
def test_a_shell_that_reads_a_dotenv_file_reads_the_same(values: list[str]) -> None:
    variables = {}
    for number, value in enumerate(values):
        try:
            as_dotenv({"X": value})
        except UsageError:
            continue
        variables[f"V{number}"] = value
    read = read_by_sh(as_dotenv(variables), list(variables)) if variables else []
    assert [value.decode() for value in read] == list(variables.values())


@pytest.mark.parametrize(
    "value", ["a\nb", 'it\'s "so"', "it's $HOME", "${HOME}", "a\\\\b", "a\\", "\x85"]
)
def test_what_readers_disagree_about_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="NAME") as caught:
        as_dotenv({"NAME": value})
    assert "--format=shell" in (caught.value.next_step or "")


def test_a_dotenv_file_is_read_from_disk_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(as_dotenv(AWKWARD) + "\n")
    assert dotenv.dotenv_values(tmp_path / ".env") == AWKWARD
