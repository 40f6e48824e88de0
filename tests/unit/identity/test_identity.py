"""The checks that an identity offers."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from identities import Cluster, key_pem, write_destination

from dbproxy.errors import Code, IdentityError
from dbproxy.identity import Identity, read_destination

BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
END = BEGIN + timedelta(hours=1)


@pytest.fixture
def identity(tmp_path: Path, cluster: Cluster) -> Identity:
    write_destination(tmp_path, cluster, not_before=BEGIN, not_after=END)
    return read_destination(tmp_path)


def test_the_times_of_the_certificate_are_aware(identity: Identity) -> None:
    assert identity.not_valid_before == BEGIN
    assert identity.not_valid_after == END


@pytest.mark.parametrize("now", [BEGIN, BEGIN + timedelta(minutes=30), END])
def test_a_certificate_is_valid_from_its_first_to_its_last_moment(
    identity: Identity, now: datetime
) -> None:
    identity.check_validity(now)


def test_an_expired_certificate_is_named_with_its_time(identity: Identity) -> None:
    with pytest.raises(IdentityError) as caught:
        identity.check_validity(END + timedelta(minutes=3))
    assert caught.value.code is Code.CERTIFICATE_EXPIRED
    assert str(caught.value) == (
        f"the certificate in {identity.files.certificate} expired at 2026-01-02 04:04:05 UTC,"
        " 3 minutes ago"
    )


def test_a_certificate_of_the_future_is_named_with_its_time(identity: Identity) -> None:
    with pytest.raises(IdentityError) as caught:
        identity.check_validity(BEGIN - timedelta(hours=2))
    assert caught.value.code is Code.CERTIFICATE_NOT_YET_VALID
    assert str(caught.value) == (
        f"the certificate in {identity.files.certificate} is valid only from"
        " 2026-01-02 03:04:05 UTC, 2 hours from now"
    )


def test_the_time_may_be_given_in_any_zone(identity: Identity) -> None:
    india = timezone(timedelta(hours=5, minutes=30))
    identity.check_validity(END.astimezone(india))


def test_the_right_service_is_accepted(identity: Identity) -> None:
    identity.check_service("example-server")


@pytest.mark.parametrize("service", ["other", "", "Example-Server", "example-server "])
def test_another_service_is_refused_with_both_names(identity: Identity, service: str) -> None:
    with pytest.raises(IdentityError) as caught:
        identity.check_service(service)
    assert caught.value.code is Code.SERVICE_MISMATCH
    assert repr(service) in str(caught.value)
    assert "'example-server'" in str(caught.value)


def test_the_encoding_of_the_certificate_is_given_for_comparison(identity: Identity) -> None:
    assert x509.load_der_x509_certificate(identity.certificate_der) == identity.certificate


def test_the_key_is_not_shown(identity: Identity) -> None:
    assert "private_key" not in repr(identity)
    for line in key_pem(identity.private_key).decode().splitlines():
        assert line not in repr(identity)


def test_identities_are_equal_only_to_themselves(identity: Identity) -> None:
    assert identity == identity
    assert identity != read_destination(identity.files.directory)
    assert len({identity, read_destination(identity.files.directory)}) == 2
