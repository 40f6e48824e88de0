"""List the databases of a MongoDB behind Teleport. Needs pymongo: pip install pymongo.

dbproxy runs beside it:

    dbproxy -c /etc/tbot.yaml db --port=12345 example-server

tbot writes mongo.crt, certificate and key in one file, with `format: mongo` (in tbot.yaml v1:
`configs: [mongo]`).
"""

from pathlib import Path

from pymongo import MongoClient

PORT = 12345
DESTINATION = Path("/opt/machine-id")  # where tbot writes
AUTHORITY = DESTINATION / "teleport-host-ca.crt"  # with --terminate: the dbproxy-ca.crt

with MongoClient(
    "localhost",
    PORT,
    directConnection=True,
    tls=True,
    tlsCAFile=str(AUTHORITY),
    tlsCertificateKeyFile=str(DESTINATION / "mongo.crt"),
) as client:
    client.admin.command("ping")
    print("Successfully connected to MongoDB.")
    for name in client.list_database_names():
        print("Database:", name)
