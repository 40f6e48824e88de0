"""What clients begin with, as recorded from drivers: the first message of each protocol."""

import struct

CLIENT_HELLO = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"
REDIS = b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n"
REDIS_SETINFO = b"*4\r\n$6\r\nCLIENT\r\n$7\r\nSETINFO\r\n$8\r\nLIB-NAME\r\n$8\r\nredis-py\r\n"
HTTP = b"GET /_search HTTP/1.1\r\nHost: localhost\r\n\r\n"
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HTTP2 = HTTP2_PREFACE + b"\0\0\6\4\0\0\0\0\0" + b"\0\2\0\0\0\0"
TDS = b"\x12\x01\x00\x2f\x00\x00\x00\x00" + b"\x00\x00\x1a\x00\x06\xff" + bytes(33)
SSH = b"SSH-2.0-OpenSSH_9.2\r\n"
POSTGRES = struct.pack("!II", 23, 3 << 16) + b"user\0alice\0\0\0\0\0"
POSTGRES_SSL = struct.pack("!II", 8, 80877103)
POSTGRES_GSSENC = struct.pack("!II", 8, 80877104)
CASSANDRA = b"\x04\x00\x00\x07\x05\x00\x00\x00\x00"
CASSANDRA_STARTUP = (
    b"\x05\x00\x01\x02\x01\x00\x00\x00\x16" + b"\x00\x01\x00\x0bCQL_VERSION\x00\x053.4.5"
)
CASSANDRA_2 = b"\x02\x00\x05\x05\x00\x00\x00\x00"
CLICKHOUSE = b"\x00\x11ClickHouse client\x18\x03\xd3\xa9\x03\x07default\x05alice\x00"
CONNECT_DATA = b"(DESCRIPTION=(CONNECT_DATA=(SERVICE_NAME=X)))"
ORACLE = (
    struct.pack("!HHBBH", 74 + len(CONNECT_DATA), 0, 1, 0, 0)
    + struct.pack("!HH", 319, 300)
    + bytes(62)
    + CONNECT_DATA
)
_HELLO = struct.pack("<i", 16) + b"\x10hello\x00\x01\x00\x00\x00" + b"\x00"


def mongodb(operation: int, body: bytes, *, request_id: int = 0x1234) -> bytes:
    """A MongoDB message."""
    return struct.pack("<iiii", 16 + len(body), request_id, 0, operation) + body


MONGODB = mongodb(2013, struct.pack("<iB", 0, 0) + _HELLO)
MONGODB_QUERY = mongodb(2004, bytes(4) + b"admin.$cmd\0" + struct.pack("<ii", 0, -1) + _HELLO)

OF_PROTOCOL = {
    "redis": [REDIS, REDIS_SETINFO, b"*1\r\n$4\r\nPING\r\n", b"PING\r\n", b"SET a b\r\n"],
    "mongodb": [MONGODB, MONGODB_QUERY],
    "cassandra": [CASSANDRA, CASSANDRA_STARTUP, CASSANDRA_2, b"\x42" + CASSANDRA[1:]],
    "clickhouse": [CLICKHOUSE, b"\x00\x02go\x01"],
    "oracle": [ORACLE],
    "spanner": [HTTP2],
    **{
        name: [HTTP, b"POST / HTTP/1.1\r\n\r\n", b"OPTIONS * HTTP/1.1\r\n\r\n"]
        for name in ("elasticsearch", "opensearch", "dynamodb", "snowflake", "clickhouse-http")
    },
}
"""What the clients of each client-first protocol may begin with."""
