"""The page about dbproxy's output names everything that there is."""

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from started import TUNNEL

from dbproxy.cli.announce import start_message
from dbproxy.events import ConnectionRecord, Event
from dbproxy.settings import Settings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "output.md").read_text(encoding="utf-8")


def first_cells(title: str) -> set[str]:
    """The words in backquotes in the first column of the tables of a section."""
    section = PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    return set(_words(section))


def _words(section: str) -> Iterator[str]:
    for line in section.splitlines():
        if line.startswith("| `"):
            yield from line.split("|")[1].replace("`", "").replace(",", " ").split()


def test_every_field_of_the_record_has_a_row() -> None:
    rows = first_cells("The record of a connection")
    assert {field.name for field in fields(ConnectionRecord)} <= rows


def test_every_outcome_in_the_records_own_description_has_a_row() -> None:
    described = (ConnectionRecord.__doc__ or "").split("outcome: ")[1].split("code: ")[0]
    outcomes = {word for word in described.split("`")[1::2] if word != "code"}
    assert len(outcomes) >= 7
    assert outcomes <= first_cells("The record of a connection")


@pytest.mark.parametrize("event", Event.__subclasses__(), ids=lambda event: event.name)
def test_every_event_has_a_row(event: type[Event]) -> None:
    assert event.name in first_cells("The log")


def test_every_key_of_the_start_message_has_a_row() -> None:

    facts = json.loads(start_message(TUNNEL, Settings(format="json")))
    assert set(facts) == first_cells("The start message")
