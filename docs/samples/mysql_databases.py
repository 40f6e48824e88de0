"""List the databases of a MySQL or MariaDB behind Teleport. Needs PyMySQL: pip install PyMySQL.

dbproxy runs beside it:

    dbproxy -c /etc/tbot.yaml db --port=12345 example-server
"""

import ssl
from contextlib import closing
from pathlib import Path

import pymysql

PORT = 12345
DESTINATION = Path("/opt/machine-id")  # where tbot writes
AUTHORITY = DESTINATION / "teleport-host-ca.crt"  # with --terminate: the dbproxy-ca.crt

tls = ssl.create_default_context(cafile=AUTHORITY)
tls.load_cert_chain(DESTINATION / "tlscert", DESTINATION / "key")

connection = pymysql.connect(host="localhost", port=PORT, user="alice", database="example", ssl=tls)
with closing(connection), connection.cursor() as cursor:
    connection.ping(reconnect=False)
    print("Successfully connected to MySQL.")
    cursor.execute("SHOW DATABASES")
    for (name,) in cursor:
        print("Database:", name)
