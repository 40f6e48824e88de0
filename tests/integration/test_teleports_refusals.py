"""What PostgreSQL's drivers make of Teleport's own errors, which come with a message alone."""

import pytest
import trio
from database_clients import (
    Psql,
    refused_asyncpg,
    refused_pg8000,
    refused_psql,
    refused_psycopg,
    with_psycopg,
)
from lab_client import read_message, startup
from running_proxy import PATIENCE, ProxyIn, checked_modes
from teleports_refusals import DENIED, KNOWN, OTHER, UNKNOWN_SERVICE

from dbproxy import Code, Mode
from dbproxy.errors import PROBLEMS
from dbproxy.lab import Lab
from dbproxy.lab.faults import Action, Fault, FaultPlan, Step

DENIED_HINT = f"{PROBLEMS[Code.ACCESS_DENIED].client_hint} [access-denied]"
UNKNOWN_HINT = f"{PROBLEMS[Code.SERVICE_NOT_FOUND].client_hint} [service-not-found]"


@checked_modes
@pytest.mark.parametrize("outside", [{"user": "bob"}, {"dbname": "secret"}])
async def test_who_is_outside_the_role_gets_a_whole_error(
    mode: Mode, outside: dict[str, str], proxy_in: ProxyIn, psql: Psql
) -> None:
    async with proxy_in(mode) as proxy:
        for text in (
            await refused_psql(psql, proxy, **outside),
            await refused_psycopg(proxy, **outside),
        ):
            assert text.rstrip().endswith(f"FATAL:  {DENIED}\nHINT:  {DENIED_HINT}")
        asyncpg = await refused_asyncpg(proxy, **outside)
        renamed = {"database" if name == "dbname" else name: v for name, v in outside.items()}
        pg8000 = await refused_pg8000(proxy, **renamed)
        records = await proxy.all_closed(4)
    assert asyncpg.kind == "InvalidAuthorizationSpecificationError"
    assert asyncpg.text == f"{DENIED}\nHINT:  {DENIED_HINT}"
    assert (asyncpg.sqlstate, asyncpg.hint) == ("28000", DENIED_HINT)
    assert (pg8000["M"], pg8000["C"], pg8000["H"]) == (DENIED, "28000", DENIED_HINT)
    assert pg8000["S"] == pg8000["V"] == "FATAL"
    for record in records:
        assert (record.outcome, record.code) == ("refused", Code.ACCESS_DENIED)
        assert record.closed_by == "upstream"
        assert DENIED not in (record.reason or "")


@checked_modes
async def test_a_service_that_teleport_does_not_know_is_no_such_database(
    mode: Mode, lab: Lab, proxy_in: ProxyIn, psql: Psql
) -> None:
    lab.refuse_sessions(UNKNOWN_SERVICE)
    async with proxy_in(mode) as proxy:
        for text in (await refused_psql(psql, proxy), await refused_psycopg(proxy)):
            assert text.rstrip().endswith(f"FATAL:  {UNKNOWN_SERVICE}\nHINT:  {UNKNOWN_HINT}")
        asyncpg, pg8000 = await refused_asyncpg(proxy), await refused_pg8000(proxy)
        lab.serve_sessions()
        row = await with_psycopg(
            proxy, lambda connection: connection.execute("SELECT 1").fetchone()
        )
        records = await proxy.all_closed(5)
    assert asyncpg.kind == "InvalidCatalogNameError"
    assert asyncpg.text == f"{UNKNOWN_SERVICE}\nHINT:  {UNKNOWN_HINT}"
    assert (asyncpg.sqlstate, asyncpg.hint) == ("3D000", UNKNOWN_HINT)
    assert (pg8000["C"], pg8000["M"], pg8000["H"]) == ("3D000", UNKNOWN_SERVICE, UNKNOWN_HINT)
    assert row == (1,)
    refused = ["service-not-found"] * 4
    assert [record.code for record in records] == [*refused, None]


@pytest.mark.parametrize(
    ("text", "code", "sqlstate"), [*KNOWN, (OTHER, Code.REFUSED_BY_TELEPORT, "28000")]
)
async def test_each_text_of_teleports_has_code_sqlstate_and_hint(
    text: str, code: Code, sqlstate: str, lab: Lab, proxy_in: ProxyIn
) -> None:
    lab.refuse_sessions(text)
    async with proxy_in(Mode.TUNNEL) as proxy:
        fields = await refused_pg8000(proxy)
        record = await proxy.record()
    assert (fields["C"], fields["M"]) == (sqlstate, text)
    assert fields["H"].endswith(f"[{code}]")
    assert record.code is code


@checked_modes
async def test_with_no_rewrite_clients_get_what_teleport_said(
    mode: Mode, proxy_in: ProxyIn, psql: Psql
) -> None:
    async with proxy_in(mode, no_rewrite=True) as proxy:
        for text in (
            await refused_psql(psql, proxy, user="bob"),
            await refused_psycopg(proxy, user="bob"),
        ):
            assert text.strip().endswith(f"failed: {DENIED}")
        asyncpg = await refused_asyncpg(proxy, user="bob")
        records = await proxy.all_closed(3)
    assert (asyncpg.kind, asyncpg.text, asyncpg.sqlstate) == ("UnknownPostgresError", DENIED, None)
    assert {(record.outcome, record.code) for record in records} == {("refused", "access-denied")}


async def test_in_passthrough_the_error_is_encrypted_for_the_client(
    proxy_in: ProxyIn, lab: Lab
) -> None:
    lab.refuse_sessions(UNKNOWN_SERVICE)
    async with proxy_in(Mode.PASSTHROUGH) as proxy:
        assert await refused_pg8000(proxy) == {"M": UNKNOWN_SERVICE}
        record = await proxy.record()
    assert (record.outcome, record.code) == ("relayed", None)


@checked_modes
async def test_an_error_of_the_database_itself_is_left_alone(
    mode: Mode, proxy_in: ProxyIn, lab: Lab
) -> None:
    """PostgreSQL refuses a parameter that it does not know, in its own words."""
    async with proxy_in(mode) as proxy:
        text = await refused_psycopg(proxy, options="-c no_such_parameter=1")
        record = await proxy.record()
    assert 'FATAL:  unrecognized configuration parameter "no_such_parameter"' in text
    assert "HINT" not in text
    assert (record.outcome, record.code) == ("relayed", None)


@pytest.mark.parametrize("action", [Action.CLOSE, Action.RESET])
async def test_an_error_that_is_cut_arrives_as_far_as_it_came(
    action: Action, proxy_in: ProxyIn, lab: Lab
) -> None:
    lab.refuse_sessions(DENIED)
    lab.faults.plan = FaultPlan(Fault(Step.SENT, action, size=30))
    async with proxy_in(Mode.TUNNEL) as proxy, await proxy.connect() as client:
        await client.send_all(startup(user="alice", database="example"))
        received = b""
        with trio.fail_after(PATIENCE):
            while data := await client.receive_some():
                received += data
        record = await proxy.record()
    assert b"HINT" not in received
    assert received[:1] == b"E"
    assert received[6:] == DENIED.encode()[: len(received) - 6]
    assert (record.outcome, record.bytes_down) == ("relayed", len(received))


async def test_a_refusal_in_a_replayed_attempt_is_completed_too(
    proxy_in: ProxyIn, lab: Lab
) -> None:
    lab.refuse_sessions(DENIED)
    lab.faults.plan = FaultPlan(
        Fault(Step.HANDSHAKE, Action.RESET, first=1, alpn="teleport-postgres")
    )
    async with proxy_in(Mode.TUNNEL, connect_grace=10.0) as proxy:
        async with await proxy.connect() as client:
            await client.send_all(startup(user="alice", database="example"))
            kind, body = await read_message(client)
        record = await proxy.record()
    assert kind == "E"
    assert b"C28000\0" in body
    assert record.attempts == 2
    assert (record.outcome, record.code) == ("refused", Code.ACCESS_DENIED)
