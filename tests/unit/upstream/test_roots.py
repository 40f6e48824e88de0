"""Authorities in a file that may change while we run."""

from pathlib import Path

import pytest
from identities import certificate_pem, make_authority

from dbproxy.errors import Code, ConfigError
from dbproxy.events import AuthoritiesPassedOver, Event
from dbproxy.upstream import RootsFile

ONE, TWO = make_authority("one").certificate, make_authority("two").certificate


def not_expected(event: Event) -> None:
    pytest.fail(f"unexpected: {event}")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "roots.pem"
    path.write_bytes(certificate_pem(ONE))
    return path


def test_a_file_that_does_not_change_is_read_once(file: Path) -> None:
    roots = RootsFile(file, not_expected)
    assert roots() == (ONE,)
    assert roots() is roots()


def test_what_has_been_added_is_trusted_from_now_on(file: Path) -> None:
    roots = RootsFile(file, not_expected)
    file.write_bytes(certificate_pem(ONE, TWO))
    assert roots() == (ONE, TWO)


@pytest.mark.parametrize("damage", [b"", b"nonsense"])
def test_a_damaged_file_leaves_the_last_good_set_and_is_told_once(
    file: Path, damage: bytes
) -> None:
    events: list[Event] = []
    roots = RootsFile(file, events.append)
    file.write_bytes(damage)
    assert [roots(), roots()] == [(ONE,), (ONE,)]
    (event,) = events
    assert isinstance(event, AuthoritiesPassedOver)
    assert event.code is Code.FILE_UNUSABLE
    assert str(file) in event.reason


def test_a_file_that_vanishes_and_comes_back_is_followed(file: Path) -> None:
    events: list[Event] = []
    roots = RootsFile(file, events.append)
    file.unlink()
    assert roots() == (ONE,)
    file.write_bytes(certificate_pem(TWO))
    assert roots() == (TWO,)
    assert len(events) == 1


def test_a_file_that_is_unusable_from_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        RootsFile(tmp_path / "absent.pem", not_expected)
    assert caught.value.code is Code.FILE_UNUSABLE
