"""The lines on the channel: whole messages, however they are cut, and nothing else."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from identities import Cluster

from dbproxy.downstream import LocalAuthority, ServerCertificate
from dbproxy.errors import Code, IdentityError
from dbproxy.identity import PrivateKey
from dbproxy.workers.messages import (
    LONGEST,
    Begin,
    Draining,
    Message,
    Messages,
    Mistaken,
    Ready,
    Reload,
    Shown,
    Stop,
    StopNow,
    Stopped,
    encode,
)

EVERY: list[Message] = [
    Begin(),
    Shown("certificates\n", "key\n", "", "localhost"),
    Reload(),
    Stop(),
    StopNow(),
    Ready(),
    Mistaken("certificate-expired", "grüß\nGott", "Wait."),
    Draining(3),
    Stopped(0),
]
EVERYTHING = b"".join(map(encode, EVERY))


@pytest.mark.parametrize("message", EVERY, ids=lambda message: message.kind)
def test_a_message_is_one_line_and_comes_back_as_it_was(message: Message) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert Messages().receive(line) == [message]


@given(cuts=st.lists(st.integers(0, len(EVERYTHING))))
def test_cutting_makes_no_difference(cuts: list[int]) -> None:
    messages = Messages()
    edges = sorted({0, len(EVERYTHING), *cuts})
    received = [
        message
        for begin, end in pairwise(edges)
        for message in messages.receive(EVERYTHING[begin:end])
    ]
    assert received == EVERY


def test_every_single_byte_may_come_alone() -> None:
    messages = Messages()
    assert [m for i in range(len(EVERYTHING)) for m in messages.receive(EVERYTHING[i : i + 1])] == (
        EVERY
    )


@given(data=st.binary())
def test_rubbish_is_refused_or_not_complete(data: bytes) -> None:
    messages = Messages()
    try:
        assert messages.receive(data) == []
    except ValueError:
        return
    assert b"\n" not in data


values = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())


@given(
    message=st.dictionaries(st.sampled_from(["kind", "open_connections", "code", "other"]), values)
)
def test_json_that_is_no_message_is_refused(message: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="message"):
        Messages().receive(json.dumps(message | {"kind": "stopped"}).encode() + b"\n")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b'"ready"',
        b"{}",
        b'{"kind": []}',
        b'{"kind": "nothing"}',
        b'{"kind": "ready", "more": 1}',
        b'{"kind": "draining"}',
        b'{"kind": "draining", "open_connections": "3"}',
        b'{"kind": "draining", "open_connections": true}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_these_are_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"message|JSON"):
        Messages().receive(line + b"\n")


def test_a_line_without_an_end_is_refused_at_last() -> None:
    messages = Messages()
    for _ in range(LONGEST // 1024):
        assert messages.receive(b"x" * 1024) == []
    with pytest.raises(ValueError, match="end of line"):
        messages.receive(b"x")


def test_an_error_comes_back_with_its_code_and_its_next_step() -> None:
    error = IdentityError(Code.CERTIFICATE_EXPIRED, "it is over", next_step="Wait.")
    back = Mistaken.of(error).error()
    assert (back.code, back.message, back.next_step) == (error.code, error.message, error.next_step)


def test_a_code_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="not-a-code"):
        Mistaken("not-a-code", "", "").error()


class TestWhatIsShown:
    """The server certificate of `--terminate`."""

    def test_it_comes_back_with_its_key(self, tmp_path: Path) -> None:
        shown = LocalAuthority.open(tmp_path).issue_server_certificate()
        assert same(shown)

    @pytest.mark.parametrize(
        "key",
        [
            ec.generate_private_key(ec.SECP384R1()),
            ed25519.Ed25519PrivateKey.generate(),
            rsa.generate_private_key(65537, 2048),
        ],
        ids=["ec", "ed25519", "rsa"],
    )
    def test_any_key_and_any_chain_will_do(self, cluster: Cluster, key: PrivateKey) -> None:
        chain = (cluster.user.certificate, cluster.database.certificate)
        assert same(ServerCertificate(cluster.host.certificate, chain, key, None, "db.example.com"))

    def test_the_key_is_in_no_text_about_it(self, tmp_path: Path) -> None:
        shown = Shown.of(LocalAuthority.open(tmp_path).issue_server_certificate())
        assert "PRIVATE" in shown.private_key
        assert "PRIVATE" not in repr(shown)

    def test_the_key_is_in_no_error_about_it(self, tmp_path: Path) -> None:
        shown = Shown.of(LocalAuthority.open(tmp_path).issue_server_certificate())
        secret = shown.private_key.splitlines()[1]
        with pytest.raises(ValueError, match="JSON") as caught:
            Messages().receive(encode(shown)[:-2] + b"\n")
        assert secret not in repr(caught.value)
        assert caught.value.__suppress_context__


def same(shown: ServerCertificate) -> bool:
    (message,) = Messages().receive(encode(Shown.of(shown)))
    assert isinstance(message, Shown)
    back = message.certificate()
    assert (back.certificate, back.chain) == (shown.certificate, shown.chain)
    assert (back.ca_file, back.host) == (shown.ca_file, shown.host)
    return back.private_key.public_key() == shown.private_key.public_key()
