"""What is in the demo's database, and how long its certificates live."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from dbproxy.lab.guide import DATABASE, DATABASE_USER

__all__ = ["LIFETIME", "PLANETS", "QUERY", "RENEWAL", "SCHEMA", "SETUP"]

LIFETIME: Final = timedelta(seconds=60)
RENEWAL: Final = timedelta(seconds=20)
"""A third of the lifetime, which is the proportion of tbot's defaults."""

PLANETS: Final = ((1, "Mercury"), (2, "Venus"), (3, "Earth"), (4, "Mars"))
QUERY: Final = "SELECT position, name FROM planets ORDER BY position"

SETUP: Final = f"""\
CREATE ROLE {DATABASE_USER} LOGIN;
CREATE DATABASE {DATABASE};
"""
ROWS: Final = ", ".join(str(planet) for planet in PLANETS)
SCHEMA: Final = f"""\
CREATE TABLE planets (position, name) AS VALUES {ROWS};
GRANT SELECT ON planets TO {DATABASE_USER};
"""
