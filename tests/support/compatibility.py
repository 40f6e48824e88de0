"""The conformance table: which cells there are, what a run has shown in them, and the page.

A run records a word for each cell as properties of its test, and `--junitxml` writes them down.

    python -m compatibility REPORT    writes docs/compatibility.md from them
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final, TypeAlias
from xml.etree import ElementTree

from drivers import DRIVERS, Cell, Driver

from dbproxy import Mode
from dbproxy.protocols import protocol_named

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"

YES: Final = "yes"
BY_ITSELF: Final = "by itself"
ANEW: Final = "anew"
TOLD: Final = "told why"
ALERT: Final = "TLS alert"
CLOSED: Final = "closed"
CANNOT: Final = "cannot"
REFUSED_AT_START: Final = "refused at start"
NOTHING: Final = "–"

OTHERS: Final = (
    *("clickhouse", "clickhouse-http", "dynamodb", "opensearch"),
    *("oracle", "snowflake", "spanner"),
)
"""Protocols without a row."""

CERTIFICATE_CELLS: Final = frozenset({Cell.FOREIGN_CERTIFICATE, Cell.NO_CERTIFICATE})
"""Cells that a tunnel does not have: its clients show no certificate."""

SERVERS: Final = {
    "postgres": "PostgreSQL: a real one",
    "cockroachdb": "CockroachDB: a real PostgreSQL, as Teleport's protocol `cockroachdb`",
    "mysql": "MySQL and MariaDB: a real MariaDB",
    "mongodb": "MongoDB: nx-27017, a server of its wire protocol",
    "redis": "Redis: a real one",
    "sqlserver": "SQL Server: a stand-in",
    "cassandra": "Cassandra: a stand-in",
    "elasticsearch": "Elasticsearch, and what else is built on HTTP: a stand-in",
}
"""A heading for each protocol, in the order of the page."""

INTRO: Final = """\
<!-- Written by scripts/compatibility from a run of the tests; change the tests instead. -->

# Compatibility

Each cell is a test: the driver, dbproxy, the [lab](lab.md) in Teleport's place, a database. The lab is
not Teleport; where it does not know what Teleport's words would be, it closes the connection.

| column | what is tried |
|---|---|
| connect | connecting with what the start message says, and closing |
| query | one row |
| large result | 4 MiB in 64 rows, each byte compared |
| reconnect | the Teleport Proxy is restarted while the connection is open, and the next question is answered: by the same client object (*by itself*), or by a new connection after an error (*anew*); a program is run again |
| denied user | a database user that the role does not allow |
| foreign certificate | a client certificate of another cluster |
| no certificate | TLS without a client certificate |

| refused clients | what the driver's exception, or the program, says |
|---|---|
| told why | the reason: Teleport's own words, or dbproxy's with a code |
| TLS alert | which alert Teleport ended the handshake with; in passthrough TLS is between client and Teleport |
| closed | that the connection has ended; dbproxy's log has what it knows |

*Cannot* is a driver that has no way to show a certificate, where the mode wants one; it is told so.
*Refused at start* is a mode that Teleport does not have for the protocol. In a tunnel clients show no
certificate.
"""

OTHERS_INTRO: Final = """
## Not in the table

dbproxy carries these protocols too. Tests send their first messages and a megabyte through each mode
that Teleport has for them and compare what comes back, and, where a driver is at hand, read refusals
with it; no database answers: """

Key: TypeAlias = tuple[str, str, Mode, Cell]


@dataclass(frozen=True)
class Result:
    """What a run has shown in a cell.

    Attributes:
        protocol: The database protocol.
        driver: The driver's name.
        version: Its version.
        mode: dbproxy's mode.
        cell: The column.
        word: What the table says.
    """

    protocol: str
    driver: str
    version: str
    mode: Mode
    cell: Cell
    word: str

    @property
    def key(self) -> Key:
        """Which cell it is."""
        return self.protocol, self.driver, self.mode, self.cell

    def properties(self) -> Iterator[tuple[str, str]]:
        """As a test records it."""
        yield from ((name, str(value)) for name, value in vars(self).items())

    @classmethod
    def from_properties(cls, values: Mapping[str, str]) -> "Result":
        """The inverse."""
        return cls(
            protocol=values["protocol"],
            driver=values["driver"],
            version=values["version"],
            mode=Mode(values["mode"]),
            cell=Cell(values["cell"]),
            word=values["word"],
        )


def cases() -> list[tuple[Driver, Mode, Cell]]:
    """Every cell of the table, in its order."""
    return [
        (driver, mode, cell)
        for driver in DRIVERS
        for mode in Mode
        for cell in Cell
        if mode is not Mode.TUNNEL or cell not in CERTIFICATE_CELLS
    ]


def keys() -> set[Key]:
    """The same as keys."""
    return {(driver.protocol, driver.name, mode, cell) for driver, mode, cell in cases()}


def is_served(driver: Driver, mode: Mode) -> bool:
    """Whether Teleport has the mode for the driver's protocol."""
    return mode is not Mode.PASSTHROUGH or protocol_named(driver.protocol).passthrough


def read_results(report: Path) -> list[Result]:
    """What a run has written with `--junitxml`."""
    results = []
    for case in ElementTree.parse(report).iter("testcase"):
        values = {item.attrib["name"]: item.attrib["value"] for item in case.iter("property")}
        if "cell" in values:
            results.append(Result.from_properties(values))
    return results


def make_page(results: Sequence[Result]) -> str:
    """The page.

    Raises:
        KeyError: The run has not been through every cell.
    """
    words = {result.key: result.word for result in results}
    versions = {(result.protocol, result.driver): result.version for result in results}
    sections = [
        _section(protocol, list(drivers), words, versions)
        for protocol, drivers in groupby(DRIVERS, lambda driver: driver.protocol)
    ]
    return f"{INTRO}{''.join(sections)}{OTHERS_INTRO}{_listed(OTHERS)}.\n"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _section(
    protocol: str,
    drivers: Sequence[Driver],
    words: Mapping[Key, str],
    versions: Mapping[tuple[str, str], str],
) -> str:
    lines = [
        "",
        f"## {SERVERS[protocol]}",
        "",
        f"| driver | mode | {' | '.join(Cell)} |",
        f"|---|---|{'---|' * len(Cell)}",
    ]
    for driver in drivers:
        title = f"{driver.name} {versions[protocol, driver.name]}"
        for mode in Mode:
            row = [_word(words, (protocol, driver.name, mode, cell)) for cell in Cell]
            if REFUSED_AT_START in row:
                row = [REFUSED_AT_START] + [NOTHING] * (len(Cell) - 1)
            lines.append(f"| {title} | {mode} | {' | '.join(row)} |")
    notes = [f"- {driver.name}: {driver.note}" for driver in drivers if driver.note]
    return "\n".join([*lines, *([""] if notes else []), *notes, ""])


def _word(words: Mapping[Key, str], key: Key) -> str:
    *_, mode, cell = key
    if mode is Mode.TUNNEL and cell in CERTIFICATE_CELLS:
        return NOTHING
    return words[key]


def words_on(page: str) -> dict[Key, str]:
    """What the page says in each cell, the inverse of `make_page`."""
    words: dict[Key, str] = {}
    protocols = {title: protocol for protocol, title in SERVERS.items()}
    protocol = ""
    for line in page.splitlines():
        if line.startswith("## "):
            protocol = protocols.get(line.removeprefix("## "), "")
        parts = [part.strip() for part in line.strip("|").split("|")]
        if protocol and len(parts) == 2 + len(Cell) and parts[1] in set(Mode):
            driver = re.sub(r" [\w.+-]+$", "", parts[0])
            row = parts[2:]
            if row[0] == REFUSED_AT_START:
                row = [REFUSED_AT_START] * len(Cell)
            for cell, word in zip(Cell, row, strict=True):
                if word != NOTHING:
                    words[protocol, driver, Mode(parts[1]), cell] = word
    return words


if __name__ == "__main__":
    PAGE.write_text(make_page(read_results(Path(sys.argv[1]))), encoding="utf-8")
