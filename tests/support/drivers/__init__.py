"""Every driver and program of the conformance table; see `drivers.base`."""

from drivers.base import GREETING, LARGE, LARGE_LINES, Cell, Driver, Endpoint, Session
from drivers.cassandra import DataStax
from drivers.http import Httpx
from drivers.mongodb import AsyncPyMongo, PyMongo
from drivers.mysql import Asyncmy, Mariadb, MySQLConnector, PyMySQL
from drivers.postgres import (
    Asyncpg,
    CockroachPsql,
    CockroachPsycopg,
    Pg8000,
    Psql,
    Psycopg,
)
from drivers.redis import RedisCli, RedisPy
from drivers.sqlserver import PythonTds, Tsql

__all__ = [
    "DRIVERS",
    "GREETING",
    "LARGE",
    "LARGE_LINES",
    "Cell",
    "Driver",
    "Endpoint",
    "Session",
]

DRIVERS: tuple[Driver, ...] = (
    Psql(),
    Psycopg(),
    Asyncpg(),
    Pg8000(),
    CockroachPsql(),
    CockroachPsycopg(),
    Mariadb(),
    PyMySQL(),
    MySQLConnector(),
    Asyncmy(),
    PyMongo(),
    AsyncPyMongo(),
    RedisCli(),
    RedisPy(),
    Tsql(),
    PythonTds(),
    DataStax(),
    Httpx(),
)
"""In the order of the table."""
