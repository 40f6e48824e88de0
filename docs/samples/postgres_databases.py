"""List the databases of a PostgreSQL behind Teleport. Needs psycopg: pip install 'psycopg[binary]'.

dbproxy runs beside it:

    dbproxy -c /etc/tbot.yaml db --port=12345 example-server
"""

from pathlib import Path

import psycopg

PORT = 12345
DESTINATION = Path("/opt/machine-id")  # where tbot writes
AUTHORITY = DESTINATION / "teleport-host-ca.crt"  # with --terminate: the dbproxy-ca.crt

with psycopg.connect(
    host="localhost",
    port=PORT,
    user="alice",
    dbname="example",
    sslmode="verify-full",
    sslrootcert=AUTHORITY,
    sslcert=DESTINATION / "tlscert",
    sslkey=DESTINATION / "key",
) as connection:
    connection.execute("SELECT 1")
    print("Successfully connected to PostgreSQL.")
    for (name,) in connection.execute("SELECT datname FROM pg_database ORDER BY datname"):
        print("Database:", name)
