"""Events have stable names, and every subscriber gets each of them in order."""

import dataclasses
import re

import pytest

from dbproxy import events
from dbproxy.events import Event, EventStream, Level, Stopped

KINDS = [
    kind
    for kind in vars(events).values()
    if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
]


def test_every_event_has_a_name_of_its_own() -> None:
    names = [kind.name for kind in KINDS]
    assert len(names) == len(set(names))
    assert "event" not in names


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_event_is_a_documented_immutable_value(kind: type[Event]) -> None:
    assert re.fullmatch("[a-z]+(-[a-z]+)*", kind.name)
    assert isinstance(kind.level, Level)
    assert kind.__doc__
    assert vars(kind)["__dataclass_params__"].frozen
    assert kind.__name__ in events.__all__


def test_nothing_secret_has_a_place_in_an_event() -> None:
    fields = {field.name for kind in KINDS for field in dataclasses.fields(kind)}
    assert not fields & {"key", "private_key", "password", "token", "data"}


def test_every_subscriber_gets_every_event_in_order_at_once() -> None:
    one: list[Event] = []
    other: list[Event] = []
    stream = EventStream(one.append, other.append)
    published = [Stopped(ended_early=number) for number in range(3)]
    for event in published:
        stream.publish(event)
        assert one[-1] is other[-1] is event
    assert one == other == published


def test_a_late_subscriber_sees_what_comes_from_then_on() -> None:
    seen: list[Event] = []
    stream = EventStream()
    stream.publish(Stopped(ended_early=0))
    stream.subscribe(seen.append)
    stream.publish(Stopped(ended_early=1))
    assert seen == [Stopped(ended_early=1)]
