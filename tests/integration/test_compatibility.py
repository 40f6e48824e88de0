"""The conformance table: every driver in every mode, and the page that shows what came out.

Each cell is a test, and its word in the table is what the test has seen; `compatibility` makes the
page of it.
"""

import gc
import re
import time
import warnings
from collections.abc import Callable
from contextlib import suppress

import pytest
from compatibility import (
    ALERT,
    ANEW,
    BY_ITSELF,
    CANNOT,
    CLOSED,
    PAGE,
    REFUSED_AT_START,
    TOLD,
    YES,
    Key,
    Result,
    cases,
    is_served,
    words_on,
)
from drivers import GREETING, LARGE, Cell, Driver, Endpoint, Session
from stage import DENIED, Stage

from dbproxy import Code, Mode, UsageError
from dbproxy.protocols import protocol_named

Record = Callable[[str, object], None]

REASON = re.compile(r"\[[a-z-]+\]|access to db denied")
"""What a reason has: a code of dbproxy's, or Teleport's words."""
PATIENCE = 10.0
"""Seconds until a driver that reconnects by itself must have done so."""
CODES = {
    Cell.FOREIGN_CERTIFICATE: Code.CLIENT_CERTIFICATE_REJECTED,
    Cell.NO_CERTIFICATE: Code.CLIENT_CERTIFICATE_MISSING,
}
"""What dbproxy says in `--terminate`."""

shown: dict[Key, str] = {}
"""What this run has seen so far."""


@pytest.mark.parametrize(
    ("driver", "mode", "cell"),
    [
        pytest.param(driver, mode, cell, id=f"{driver.protocol}-{driver.name}-{mode}-{cell}")
        for driver, mode, cell in cases()
    ],
)
def test_cell(
    driver: Driver, mode: Mode, cell: Cell, stage: Stage, record_property: Record
) -> None:
    word = TRIALS[cell](driver, mode, stage) if is_served(driver, mode) else start(driver, stage)
    if driver.leaves_sockets and cell not in {Cell.CONNECT, Cell.QUERY, Cell.LARGE_RESULT}:
        close_what_is_left()
    result = Result(driver.protocol, driver.name, driver.version, mode, cell, word)
    shown[result.key] = word
    for name, value in result.properties():
        record_property(name, value)


def test_the_page_says_what_this_run_has_seen() -> None:
    """But for this: whether a driver meets the alert or the end first can depend on the moment."""
    page = words_on(PAGE.read_text(encoding="utf-8"))
    assert {key for key, word in shown.items() if not is_same(page.get(key), word)} == set(), (
        "run scripts/compatibility"
    )


def is_same(written: str | None, seen: str) -> bool:
    return written == seen or {written, seen} == {ALERT, CLOSED}


def start(driver: Driver, stage: Stage) -> str:
    """dbproxy refuses a mode that Teleport does not have, and names those that it has."""
    with pytest.raises(UsageError) as caught:
        stage.endpoint(driver.protocol, Mode.PASSTHROUGH)
    assert protocol_named(driver.protocol).readable_name in caught.value.message
    assert re.search(r"--terminate.*--tunnel", caught.value.next_step)
    return REFUSED_AT_START


def connect(driver: Driver, mode: Mode, stage: Stage) -> str:
    return served(driver, mode, stage, lambda _: None)


def query(driver: Driver, mode: Mode, stage: Stage) -> str:
    def ask(session: Session) -> None:
        assert session.greeting() == GREETING

    return served(driver, mode, stage, ask)


def large_result(driver: Driver, mode: Mode, stage: Stage) -> str:
    def ask(session: Session) -> None:
        assert session.large() == LARGE

    return served(driver, mode, stage, ask)


def reconnect(driver: Driver, mode: Mode, stage: Stage) -> str:
    def ask(session: Session) -> None:
        assert session.greeting() == GREETING
        stage.cut_connections()
        if driver.reconnects:
            until_answered(driver, session)
        elif not driver.is_program:
            with pytest.raises(driver.errors):
                session.greeting()

    word = served(driver, mode, stage, ask)
    if word == CANNOT or driver.reconnects:
        return word if word == CANNOT else BY_ITSELF
    query(driver, mode, stage)
    return ANEW


def until_answered(driver: Driver, session: Session) -> None:
    """A driver may tell of the end once, and have to wait before it connects anew."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(*driver.errors):
            assert session.greeting() == GREETING
            return
        time.sleep(0.01)
    raise AssertionError(f"{driver.name} did not reconnect")


def denied_user(driver: Driver, mode: Mode, stage: Stage) -> str:
    endpoint = stage.endpoint(driver.protocol, mode, DENIED)
    if is_unable(driver, endpoint):
        return unable(driver, endpoint)
    text = refusal(driver, endpoint)
    assert mode is Mode.PASSTHROUGH or REASON.search(text), text
    return word_for(text)


def foreign_certificate(driver: Driver, mode: Mode, stage: Stage) -> str:
    endpoint = stage.with_foreign_certificate(stage.endpoint(driver.protocol, mode))
    if is_unable(driver, endpoint):
        return unable(driver, endpoint)
    return refused(driver, endpoint, Cell.FOREIGN_CERTIFICATE)


def no_certificate(driver: Driver, mode: Mode, stage: Stage) -> str:
    endpoint = stage.endpoint(driver.protocol, mode).without_certificate()
    return refused(driver, endpoint, Cell.NO_CERTIFICATE)


TRIALS: dict[Cell, Callable[[Driver, Mode, Stage], str]] = {
    Cell.CONNECT: connect,
    Cell.QUERY: query,
    Cell.LARGE_RESULT: large_result,
    Cell.RECONNECT: reconnect,
    Cell.DENIED_USER: denied_user,
    Cell.FOREIGN_CERTIFICATE: foreign_certificate,
    Cell.NO_CERTIFICATE: no_certificate,
}


def served(driver: Driver, mode: Mode, stage: Stage, use: Callable[[Session], None]) -> str:
    """Use a session that must be possible, if the driver can do what the mode asks for."""
    endpoint = stage.endpoint(driver.protocol, mode)
    if is_unable(driver, endpoint):
        return unable(driver, endpoint)
    with driver.open(endpoint) as session:
        use(session)
    return YES


def is_unable(driver: Driver, endpoint: Endpoint) -> bool:
    return driver.without_certificates and endpoint.has_tls


def unable(driver: Driver, endpoint: Endpoint) -> str:
    """A driver without certificates is told what it lacks."""
    assert f"[{Code.CLIENT_CERTIFICATE_MISSING}]" in refusal(driver, endpoint)
    return CANNOT


def refused(driver: Driver, endpoint: Endpoint, cell: Cell) -> str:
    """Connect, which must fail; in `--terminate` for the reason that the cell has."""
    text = refusal(driver, endpoint)
    assert endpoint.mode is Mode.PASSTHROUGH or f"[{CODES[cell]}]" in text, text
    return word_for(text)


def refusal(driver: Driver, endpoint: Endpoint) -> str:
    """The text of the driver's own exception, for a client that must be refused."""
    with pytest.raises(driver.errors) as caught, driver.open(endpoint) as session:
        session.greeting()
    return str(caught.value)


def word_for(text: str) -> str:
    if REASON.search(text):
        return TOLD
    return ALERT if "alert" in text.lower() else CLOSED


def close_what_is_left() -> None:
    """Close the sockets that a driver has left, without the warning that this brings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
