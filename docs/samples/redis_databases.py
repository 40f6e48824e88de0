"""List the databases of a Redis behind Teleport. Needs redis-py: pip install redis.

dbproxy runs beside it:

    dbproxy -c /etc/tbot.yaml db --port=12345 example-server
"""

from pathlib import Path

import redis

PORT = 12345
DESTINATION = Path("/opt/machine-id")  # where tbot writes
AUTHORITY = DESTINATION / "teleport-host-ca.crt"  # with --terminate: the dbproxy-ca.crt

with redis.Redis(
    host="localhost",
    port=PORT,
    ssl=True,
    ssl_ca_certs=str(AUTHORITY),
    ssl_certfile=str(DESTINATION / "tlscert"),
    ssl_keyfile=str(DESTINATION / "key"),
) as client:
    client.ping()
    print("Successfully connected to Redis.")
    for name, facts in client.info("keyspace").items():
        print("Database:", name, "with", facts["keys"], "keys")
