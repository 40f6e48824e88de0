"""Misspelt words in tbot's configuration, told when something is not found, and only then."""

from pathlib import Path

import pytest

from dbproxy.errors import ConfigError
from dbproxy.identity import TbotConfig, locate, parse_tbot_config

DATABASE = """
  - type: database
    service: one
    destination: {path: /one}
"""


def parse(text: str) -> TbotConfig:
    return parse_tbot_config(text.encode(), Path("tbot.yaml"))


def refusal(text: str, service: str | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        locate(destination_dir=None, config=parse(text), service=service)
    return caught.value


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            f"version: v2\n\nservces:{DATABASE}",
            "line 3: `servces` is not a key that dbproxy knows; did you mean `services`?",
        ),
        (
            f"version: v2\noutputs:{DATABASE.replace('database', 'databse')}",
            "line 3: `databse` is not a type that dbproxy knows; did you mean `database`?",
        ),
        (
            "destination:\n  - directory: /one\n    database: {service: one}\n",
            "line 1: `destination` is not a key that dbproxy knows; did you mean `destinations`?",
        ),
        (
            "destinations:\n  - directory: /one\n    databse: {service: one}\n",
            "line 3: `databse` is not a key that dbproxy knows; did you mean `database`?",
        ),
    ],
)
def test_a_misspelt_word_is_named_with_its_line_and_what_may_be_meant(
    text: str, sentence: str
) -> None:
    error = refusal(text)
    assert error.message.endswith(f"; it has none at all; {sentence}")
    assert error.next_step.startswith("Correct tbot.yaml, or")


def test_a_word_that_resembles_nothing_is_named_too() -> None:
    assert refusal("version: v2\nnew: {}\n").message.endswith(
        "line 2: `new` is not a key that dbproxy knows"
    )


def test_what_looks_misspelt_comes_first_and_the_list_is_short() -> None:
    text = "".join(f"key{number}: 1\n" for number in range(9)) + "servces: []\n"
    message = refusal(text).message
    assert message.index("line 10: `servces`") < message.index("line 1: `key0`")
    assert message.count("is not a key") == 3


def test_unknown_words_alone_break_nothing() -> None:
    text = f"version: v2\nnew: 1\nservces: []\nservices:{DATABASE}  - type: newer\n"
    found = locate(destination_dir=None, config=parse(text), service=None)
    assert found.directory == Path("/one")


def test_a_key_that_merges_is_none() -> None:
    assert parse("<<: {version: v2}\n").unknown_words == ()


@pytest.mark.parametrize(
    ("service", "text", "next_step"),
    [
        ("two", f"services:{DATABASE}", "Name one of these services, or"),
        (None, f"services:{DATABASE}{DATABASE.replace('one', 'two')}", "Name the service, or"),
        ("one", f"services:{DATABASE}{DATABASE.replace('/one', '/two')}", "Choose one with --db-u"),
        (None, "services: []\n", "Name the directory that tbot writes to"),
    ],
)
def test_the_next_step_fits_what_is_wrong(service: str | None, text: str, next_step: str) -> None:
    assert refusal(text, service).next_step.startswith(next_step)


def test_a_syntax_error_is_to_be_corrected_at_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("services: [\n")
    assert caught.value.next_step == "Correct the file at that line."
