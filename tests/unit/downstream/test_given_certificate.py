"""The operator's server certificate: clients that do what they are told verify it."""

import ssl
from pathlib import Path

import pytest
from identities import Authority, certificate_pem, key_pem, make_authority
from openssl_ends import server_layer
from tls_peers import Credentials, StdlibTLS, make_credentials, shake_hands

from dbproxy.downstream import ServerCertificate, given_server_certificate
from dbproxy.layers import LayerError


@pytest.fixture(scope="module")
def root() -> Authority:
    return make_authority("company")


@pytest.fixture(scope="module")
def intermediate(root: Authority) -> Authority:
    made = make_credentials(root, common_name="intermediate", ca=True)
    return Authority(made.certificate, made.key)


def given(directory: Path, leaf: Credentials, *chain: Authority) -> ServerCertificate:
    """What dbproxy makes of the operator's two files."""
    cert, key = directory / "server.crt", directory / "server.key"
    cert.write_bytes(certificate_pem(leaf.certificate, *(each.certificate for each in chain)))
    key.write_bytes(key_pem(leaf.key))
    return given_server_certificate(cert, key)


def verifies(server: ServerCertificate, leaf: Credentials, system: Authority | None = None) -> bool:
    """Whether a client verifies it by the name announced and the file announced.

    Like libpq it takes nothing but a self-signed certificate for a root.

    Args:
        server: What is announced.
        leaf: The same certificate with its key.
        system: What the client's system trusts.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags &= ~ssl.VERIFY_X509_PARTIAL_CHAIN
    if server.ca_file is not None:
        context.load_verify_locations(cafile=server.ca_file)
    elif system is not None:
        context.load_verify_locations(cadata=system.pem.decode())
    layer = server_layer(leaf, chain=server.chain)
    peer = StdlibTLS(context, server_side=False, server_hostname=server.host)
    try:
        shake_hands(peer, layer)
    except (ssl.SSLCertVerificationError, LayerError):
        return False
    return True


def test_a_self_signed_certificate_is_its_own_root(tmp_path: Path) -> None:
    leaf = make_credentials(None, "localhost")
    server = given(tmp_path, leaf)
    assert server.ca_file == tmp_path / "server.crt"
    assert verifies(server, leaf)


def test_a_file_with_the_root_at_its_end_is_named(
    root: Authority, intermediate: Authority, tmp_path: Path
) -> None:
    leaf = make_credentials(intermediate, "localhost")
    server = given(tmp_path, leaf, intermediate, root)
    assert server.ca_file == tmp_path / "server.crt"
    assert verifies(server, leaf)


@pytest.mark.parametrize("with_intermediate", [False, True])
def test_without_a_root_in_the_file_the_clients_own_roots_are_left_to_decide(
    with_intermediate: bool, root: Authority, intermediate: Authority, tmp_path: Path
) -> None:
    leaf = make_credentials(intermediate if with_intermediate else root, "localhost")
    server = given(tmp_path, leaf, *([intermediate] if with_intermediate else []))
    assert server.ca_file is None
    assert verifies(server, leaf, system=root)
    assert not verifies(server, leaf)


def test_a_root_that_has_nothing_to_do_with_the_leaf_is_no_root(
    root: Authority, tmp_path: Path
) -> None:
    leaf = make_credentials(root, "localhost")
    assert given(tmp_path, leaf, make_authority("other")).ca_file is None


def test_two_authorities_that_vouch_for_each_other_are_no_root(tmp_path: Path) -> None:
    one, other = make_authority("one"), make_authority("other")
    by_other = make_credentials(other, common_name="one", ca=True)
    circle = [
        Authority(by_other.certificate, by_other.key),
        Authority(make_credentials(one, common_name="other", ca=True).certificate, other.key),
    ]
    leaf = make_credentials(circle[0], "localhost")
    assert given(tmp_path, leaf, *circle).ca_file is None


@pytest.mark.parametrize(
    ("names", "host"),
    [
        (["localhost"], "localhost"),
        (["db.example.com"], "db.example.com"),
        (["db.example.com", "other.example.com"], "db.example.com"),
        (["db.example.com", "localhost", "127.0.0.1"], "localhost"),
        (["*.example.com"], "dbproxy.example.com"),
        (["127.0.0.1", "db.example.com"], "db.example.com"),
        (["127.0.0.1"], "127.0.0.1"),
        (["::1"], "::1"),
    ],
)
def test_clients_are_told_a_name_that_the_certificate_is_for(
    names: list[str], host: str, root: Authority, tmp_path: Path
) -> None:
    leaf = make_credentials(root, *names)
    server = given(tmp_path, leaf, root)
    assert server.host == host
    assert verifies(server, leaf)


def test_a_certificate_without_names_is_called_by_the_usual_one(
    root: Authority, tmp_path: Path
) -> None:
    assert given(tmp_path, make_credentials(root, common_name="localhost")).host == "localhost"
