"""What Teleport says when it refuses a session, as its sources and bug reports have it."""

from dbproxy.errors import Code

DENIED = "access to db denied. User does not have permissions. Confirm database user and name."
UNKNOWN_SERVICE = (
    'database "example-server" not found among registered databases in cluster "lab.example.com"'
)
AUTHORITY = (
    "Database service cannot validate database's certificate: x509: certificate signed by unknown"
    " authority. Please verify if the correct CA bundle is used in the database config."
)
DATES = (
    "Connection Failure. Database service could not validate database\u2019s certificate:"
    " certificate expired or is not yet valid."
)

KNOWN = [
    (DENIED, Code.ACCESS_DENIED, "28000"),
    (UNKNOWN_SERVICE, Code.SERVICE_NOT_FOUND, "3D000"),
    (
        'database "" not found among registered database servers on cluster "lab.example.com"',
        Code.SERVICE_NOT_FOUND,
        "3D000",
    ),
    (
        '"example-server" not found among registered databases: [Database(Name=other)]',
        Code.SERVICE_NOT_FOUND,
        "3D000",
    ),
    ("too many connections from 192.0.2.7: 15001, max is 15000", Code.CONNECTION_LIMIT, "53300"),
    (AUTHORITY, Code.DATABASE_UNTRUSTED, "28000"),
    (DATES, Code.DATABASE_UNTRUSTED, "28000"),
    (
        "x509: certificate has expired or is not yet valid: current time is after 2022-07-01",
        Code.DATABASE_UNTRUSTED,
        "28000",
    ),
]
"""Texts whose words are known, with our code and the SQLSTATE for PostgreSQL."""

OTHER = "role machine-id-db is not found"
"""A text that nobody here knows."""
