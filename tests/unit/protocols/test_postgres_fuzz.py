"""Whatever a client sends: only `ClientError` comes out, and little is held in memory."""

import struct
from collections.abc import Sequence

from cuts import cut_at
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.errors import ClientError, Code
from dbproxy.protocols import Carry, Reply, StartTLS
from dbproxy.protocols.postgres import PostgresPrologue
from dbproxy.settings import Mode

LARGEST = 10_000

codes = st.one_of(
    st.sampled_from([80877102, 80877103, 80877104, 3 << 16, 3 << 16 | 2]),
    st.integers(min_value=0, max_value=2**32 - 1),
)
packets = st.builds(
    lambda code, body: struct.pack("!II", 8 + len(body), code) + body, codes, st.binary(max_size=40)
)
clients = st.lists(
    st.one_of(packets, st.binary(max_size=20), st.just(b"\x16\x03\x01\0\5")), max_size=5
).map(b"".join)


def run(prologue: PostgresPrologue, pieces: Sequence[bytes]) -> tuple[list[object], Code | None]:
    """Feed a prologue until it is finished; what it said, and why it refused."""
    events: list[object] = []
    try:
        for piece in pieces:
            events += prologue.receive(piece)
            if events and not isinstance(events[-1], Reply):
                break
    except ClientError as error:
        return events, error.code
    return events, None


@given(clients, st.lists(st.integers(0, 200), max_size=6), st.sampled_from(Mode), st.booleans())
def test_any_bytes_at_all_lead_to_events_or_to_a_refusal(
    sent: bytes, cuts: Sequence[int], mode: Mode, inside_tls: bool
) -> None:
    prologue = PostgresPrologue(mode, inside_tls=inside_tls)
    events, code = run(prologue, cut_at(sent, cuts))
    last = [event for event in events if isinstance(event, Carry | StartTLS)]
    assert len(last) <= 1
    assert not (last and code)
    assert all(isinstance(event, Reply) for event in events[:-1])


@given(clients, st.sampled_from(Mode), st.booleans())
def test_what_comes_out_does_not_depend_on_where_it_was_cut(
    sent: bytes, mode: Mode, inside_tls: bool
) -> None:
    whole = run(PostgresPrologue(mode, inside_tls=inside_tls), [sent])
    bytewise = run(
        PostgresPrologue(mode, inside_tls=inside_tls), [sent[i : i + 1] for i in range(len(sent))]
    )
    assert bytewise[1] is whole[1] or Code.CLIENT_PROTOCOL_ERROR in (bytewise[1], whole[1])
    assert [type(e) for e in whole[0]] == [type(e) for e in bytewise[0]][: len(whole[0])]


@given(
    st.lists(st.binary(min_size=1, max_size=5000), min_size=1, max_size=12), st.sampled_from(Mode)
)
def test_no_more_than_the_largest_packet_is_held_between_reads(
    pieces: Sequence[bytes], mode: Mode
) -> None:
    prologue = PostgresPrologue(mode)
    length = struct.pack("!II", LARGEST, 3 << 16)
    for piece in [length, *pieces]:
        events, code = run(prologue, [piece])
        if events or code:
            return
        assert len(prologue._buffer) < LARGEST
