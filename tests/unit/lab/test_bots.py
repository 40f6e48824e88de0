from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from dbproxy.lab.authority import Authority
from dbproxy.lab.bots import Bot, Bots
from dbproxy.lab.errors import AccessDenied, JoinError, LabError, RoleError
from dbproxy.lab.keys import new_ecdsa_key
from dbproxy.lab.roles import Conditions, Role
from dbproxy.lab.subject import SubjectFields, decode_subject

PUBLIC_KEY = new_ecdsa_key().public_key()
TTL = timedelta(minutes=5)
NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)

ROLES = {
    "reader": Role("reader", allow=Conditions({}, ("example", "*"), ("alice",))),
    "writer": Role("writer", allow=Conditions({}, ("example",), ("alice", "bob"))),
}


@pytest.fixture
def authority() -> Authority:
    return Authority.create()


@pytest.fixture
def bots(authority: Authority) -> Bots:
    return Bots(authority, ROLES)


def joined(bots: Bots, *roles: str) -> Bot:
    return bots.join(bots.add("app", roles or ("reader", "writer")).token)


def subject_for(bots: Bots, bot: Bot, service: str = "") -> SubjectFields:
    certificate = bots.certificate_for(bot, PUBLIC_KEY, service=service, ttl=TTL)
    return decode_subject(certificate.subject)


def test_adding_a_bot_gives_a_token_and_the_pin_of_the_host_ca(
    authority: Authority, bots: Bots
) -> None:
    token = bots.add("app", ["reader"])
    assert len(token.token) == 32
    assert token.ca_pin == authority.ca_pin
    assert token.bot_name == "app"
    assert token.token not in repr(token)


@pytest.mark.parametrize(
    ("name", "roles", "error"),
    [("", ["reader"], LabError), ("app", [], LabError), ("app", ["missing"], RoleError)],
)
def test_a_bot_needs_a_name_and_known_roles(
    bots: Bots, name: str, roles: list[str], error: type[LabError]
) -> None:
    with pytest.raises(error):
        bots.add(name, roles)


def test_a_bot_can_be_added_once(bots: Bots) -> None:
    bots.add("app", ["reader"])
    with pytest.raises(LabError, match="exists"):
        bots.add("app", ["reader"])


def test_roles_created_later_can_be_used(authority: Authority) -> None:
    roles: dict[str, Role] = {}
    bots = Bots(authority, roles)
    roles["late"] = Role("late")
    assert bots.add("app", ["late"]).bot_name == "app"


def test_a_bot_joins_with_its_token_and_a_matching_pin(bots: Bots) -> None:
    token = bots.add("app", ["reader"])
    bot = bots.join(token.token, ["sha256:00", token.ca_pin])
    assert (bot.name, bot.user, bot.roles) == ("app", "bot-app", ("reader",))
    assert str(uuid.UUID(bot.instance_id)) == bot.instance_id


def test_each_join_is_another_instance(bots: Bots) -> None:
    token = bots.add("app", ["reader"])
    assert bots.join(token.token).instance_id != bots.join(token.token).instance_id


def test_a_wrong_token_is_refused_and_not_repeated(bots: Bots) -> None:
    bots.add("app", ["reader"])
    with pytest.raises(JoinError) as caught:
        bots.join("guessed-secret")
    assert "guessed-secret" not in str(caught.value)


def test_a_pin_of_another_cluster_is_refused(bots: Bots) -> None:
    token = bots.add("app", ["reader"])
    with pytest.raises(JoinError, match="pin"):
        bots.join(token.token, [Authority.create().ca_pin])


def test_the_old_pin_works_until_the_rotation_ends(authority: Authority, bots: Bots) -> None:
    token = bots.add("app", ["reader"])
    authority.begin_rotation()
    assert bots.join(token.token, [token.ca_pin]).name == "app"
    authority.end_rotation()
    with pytest.raises(JoinError):
        bots.join(token.token, [token.ca_pin])


def test_a_database_certificate_is_impersonated_and_carries_the_route(bots: Bots) -> None:
    bot = joined(bots)
    certificate = bots.certificate_for(
        bot,
        PUBLIC_KEY,
        service="example-server",
        protocol="postgres",
        db_user="alice",
        db_name="example",
        ttl=TTL,
    )
    assert decode_subject(certificate.subject) == SubjectFields(
        user="bot-app",
        roles=("reader", "writer"),
        logins=("-teleport-internal-join",),
        cluster_route="lab.example.com",
        traits={"logins": ()},
        service="example-server",
        protocol="postgres",
        db_user="alice",
        db_name="example",
        db_names=("example", "*"),
        db_users=("alice", "bob"),
        impersonator="bot-app",
        disallow_reissue=True,
        cluster="lab.example.com",
        bot_name="app",
        bot_instance_id=bot.instance_id,
    )


def test_a_certificate_without_a_service_has_no_route(bots: Bots) -> None:
    subject = subject_for(bots, joined(bots))
    assert (subject.service, subject.protocol, subject.db_names) == ("", "", ())


def test_requested_roles_replace_the_bots_own(bots: Bots) -> None:
    certificate = bots.certificate_for(
        joined(bots), PUBLIC_KEY, service="example-server", roles=["reader"], ttl=TTL
    )
    subject = decode_subject(certificate.subject)
    assert subject.roles == ("reader",)
    assert subject.db_users == ("alice",)


def test_a_role_that_the_bot_lacks_is_denied(bots: Bots) -> None:
    with pytest.raises(AccessDenied, match="writer"):
        bots.certificate_for(joined(bots, "reader"), PUBLIC_KEY, roles=["writer"], ttl=TTL)


@pytest.mark.parametrize(
    ("asked", "given"),
    [(timedelta(seconds=3),) * 2, (timedelta(days=3), timedelta(hours=24))],
)
def test_a_lifetime_is_kept_down_to_seconds_and_cut_to_a_day(
    bots: Bots, asked: timedelta, given: timedelta
) -> None:
    certificate = bots.certificate_for(joined(bots), PUBLIC_KEY, ttl=asked, now=NOW)
    assert certificate.not_valid_after_utc == NOW + given


def test_certificates_come_from_the_user_ca(authority: Authority, bots: Bots) -> None:
    certificate = bots.certificate_for(joined(bots), PUBLIC_KEY, ttl=TTL)
    certificate.verify_directly_issued_by(authority.user_ca.certificate)


def test_without_a_role_store_names_are_taken_on_trust(authority: Authority) -> None:
    bots = Bots(authority)
    bot = bots.join(bots.add("app", ["anything"]).token)
    subject = subject_for(bots, bot, "example-server")
    assert (subject.roles, subject.db_names) == (("anything",), ())
