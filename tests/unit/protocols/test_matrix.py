"""Every client on every port: who speaks another protocol is told, in its own, what is carried."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import beginnings
import pytest
from tds_messages import OFF, login, prelogin

from dbproxy.errors import ClientError, Code, UpstreamError
from dbproxy.protocols import Prologue, choose_protocol, protocol_named
from dbproxy.protocols.wire.tds_packets import Message, MessageReader, error_text
from dbproxy.settings import Mode, Settings

PORTS = {
    "postgres": "a PostgreSQL packet",
    "cockroachdb": "a PostgreSQL packet",
    "mysql": None,
    "sqlserver": "a SQL Server PRELOGIN packet",
    "mongodb": "a MongoDB message",
    "redis": "a Redis command",
    "cassandra": "a CQL frame",
    "clickhouse": "a ClickHouse Hello",
    "oracle": "an Oracle TNS packet",
    "spanner": "an HTTP/2 preface",
    "elasticsearch": "an HTTP request",
    "opensearch": "an HTTP request",
    "dynamodb": "an HTTP request",
    "snowflake": "an HTTP request",
    "clickhouse-http": "an HTTP request",
}
"""What the clients of each port begin with; None where they begin with nothing."""

DOWN = UpstreamError(Code.UPSTREAM_UNREACHABLE, "no connection to teleport.example.com:443")
CLIENT_ASKS = beginnings.HTTP2 + b"\0\0\1\1\5\0\0\0\1\x82"  # SETTINGS, then a request


def told_plainly(answer: bytes, words: str) -> bool:
    """Whether the words are in the answer as they are."""
    return words.encode() in answer


def told_percent_encoded(answer: bytes, words: str) -> bool:
    return answer[3] == 4 and words.encode() in answer


def told_in_a_login_error(answer: bytes, words: str) -> bool:
    reader, messages = MessageReader(), list[Message]()
    reader.feed(answer)
    while (message := reader.next_message()) is not None:
        messages.append(message)
    assert len(messages) == 2, "an answer to PRELOGIN, and one to LOGIN7"
    return words in (error_text(messages[-1].payload) or "")


@dataclass(frozen=True)
class Client:
    """Who may come to a port.

    Attributes:
        name: Of the test.
        words: What it begins with.
        sent: That.
        begins: How an answer in its own protocol begins.
        told: Whether an answer says something to it.
        goes_on: What it sends when it has read the first answer.
    """

    name: str
    words: str
    sent: bytes
    begins: bytes
    told: Callable[[bytes, str], bool] = told_plainly
    goes_on: bytes = b""


CLIENTS = [
    Client("curl", "an HTTP request", beginnings.HTTP, b"HTTP/1.1 400 Bad Request\r\n"),
    Client("options", "an HTTP request", b"OPTIONS * HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 "),
    Client("grpc", "an HTTP/2 preface", CLIENT_ASKS, b"\0\0\0\4\0", told_percent_encoded),
    Client("psql", "a PostgreSQL packet", beginnings.POSTGRES, b"E\0\0"),
    Client(
        "psql-tls",
        "a PostgreSQL packet",
        beginnings.POSTGRES_SSL,
        b"N",
        goes_on=beginnings.POSTGRES,
    ),
    Client("redis-py", "a Redis command", beginnings.REDIS_SETINFO, b"-ERR dbproxy: "),
    Client("redis-cli", "a Redis command", beginnings.REDIS, b"-ERR dbproxy: "),
    Client("pymongo", "a MongoDB message", beginnings.MONGODB, b""),
    Client("old-mongo", "a MongoDB message", beginnings.MONGODB_QUERY, b""),
    Client("cqlsh", "a CQL frame", beginnings.CASSANDRA, b"\x84\0"),
    Client("old-cqlsh", "a CQL frame", beginnings.CASSANDRA_2, b"\x82\0"),
    Client("clickhouse-client", "a ClickHouse Hello", beginnings.CLICKHOUSE, b"\2"),
    Client("sqlplus", "an Oracle TNS packet", beginnings.ORACLE, b""),
    Client(
        "sqlcmd",
        "a SQL Server PRELOGIN packet",
        prelogin(OFF),
        b"\4\1",
        told_in_a_login_error,
        login(),
    ),
    Client("ssh", "an SSH greeting", beginnings.SSH, b"dbproxy: "),
]

PAIRS = [
    pytest.param(port, client, id=f"{client.name}-on-{port}")
    for port, own in PORTS.items()
    for client in CLIENTS
    if client.words != own
]


def refuse(prologue: Prologue, pieces: Sequence[bytes]) -> ClientError:
    """Feed it until it refuses, which it must."""
    for piece in pieces:
        try:
            assert prologue.receive(piece) == []
        except ClientError as error:
            return error
    raise AssertionError("it was not refused")


def answer_of(prologue: Prologue, error: ClientError, *pieces: bytes) -> bytes:
    """All that a client gets that goes on to send pieces."""
    answer = prologue.refusal(error)
    answering = prologue.further(error)
    return answer + b"".join(answering(piece) for piece in pieces if answering is not None)


@pytest.mark.parametrize(("port", "client"), PAIRS)
@pytest.mark.parametrize("mode", Mode)
def test_a_client_of_another_protocol_is_told_in_its_own_words(
    port: str, client: Client, mode: Mode
) -> None:
    protocol = protocol_named(port)
    prologue = protocol.prologue(mode)
    error = refuse(prologue, [client.sent])
    assert error.code is Code.CLIENT_PROTOCOL_ERROR
    words = f"this port carries {protocol.readable_name}"
    assert words in error.message
    assert error.message.endswith(f"the client began with {client.words}")
    answer = answer_of(prologue, error, client.goes_on)
    assert answer.startswith(client.begins)
    escaped = words.translate(str.maketrans("()", "  ")) if client.name == "sqlplus" else words
    assert client.told(answer, escaped)
    assert client.name == "sqlplus" or client.told(answer, "[client-protocol-error]")


@pytest.mark.parametrize(("port", "client"), [pair for pair in PAIRS if pair.values[0] != "mysql"])
def test_it_is_recognised_wherever_its_first_message_is_cut(port: str, client: Client) -> None:
    """Not on a MySQL port, which does not wait: its own clients wait for the greeting."""
    for cut in range(len(client.sent)):
        prologue = protocol_named(port).prologue(Mode.TUNNEL)
        error = refuse(prologue, [client.sent[:cut], client.sent[cut:]])
        assert error.message.endswith(f"the client began with {client.words}")
        assert prologue.refusal(error).startswith(client.begins)
    prologue = protocol_named(port).prologue(Mode.TUNNEL)
    bytewise = [client.sent[at : at + 1] for at in range(len(client.sent))]
    error = refuse(prologue, bytewise)
    assert error.message.endswith(f"the client began with {client.words}")


@pytest.mark.parametrize("port", [port for port in PORTS if port != "mysql"])
@pytest.mark.parametrize("mode", Mode)
def test_a_mysql_client_which_waits_to_be_greeted_is_told_when_its_time_is_over(
    port: str, mode: Mode
) -> None:
    protocol = protocol_named(port)
    stalled = ClientError(Code.CLIENT_STALLED, "10 s are over")
    answer = protocol.prologue(mode).refusal(stalled)
    assert int.from_bytes(answer[:3], "little") == len(answer) - 4
    assert answer[3:5] == b"\0\xff"
    words = f"this port carries {protocol.readable_name}, and the client said nothing"
    assert words.encode() in answer


@pytest.mark.parametrize("port", PORTS)
def test_a_tls_client_on_a_tunnel_port_gets_an_alert(port: str) -> None:
    prologue = protocol_named(port).prologue(Mode.TUNNEL)
    error = refuse(prologue, [beginnings.CLIENT_HELLO])
    assert prologue.refusal(error) == b"\x15\x03\x03\x00\x02\x02\x28"


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_on_a_port_whose_protocol_nobody_knows_clients_are_told_what_is_wrong_in_their_words(
    client: Client,
) -> None:
    """Their bytes are carried there, whatever they are; so something else must be wrong."""
    protocol = choose_protocol(Settings(protocol="unheard", alpn="teleport-unheard"), "postgres")
    prologue = protocol.prologue(Mode.TUNNEL)
    prologue.receive(client.sent)
    answering = prologue.further(DOWN)
    answer = prologue.refusal(DOWN) + (answering(client.goes_on) if answering is not None else b"")
    assert client.told(answer, "upstream-unreachable")
