from __future__ import annotations

from pathlib import Path

import pytest

from dbproxy.lab.destination_files import Layout, Material, destination_files, identity_file
from dbproxy.lab.tbot_config import FileNames, Output

MATERIAL = Material(
    key=b"KEY\n",
    public_key=b"PUB\n",
    certificate=b"CERT\n",
    ssh_certificate=b"SSHCERT\n",
    host_cas=(b"HOST2\n", b"HOST1\n"),
    user_cas=(b"USER2\n", b"USER1\n"),
    database_cas=(b"DB2\n", b"DB1\n"),
    ssh_cas=(b"SSHHOSTCA\n", b"SSHUSERCA\n"),
    known_hosts=(b"@cert-authority x\n",),
)
ALL_FORMATS = ("tls", "mongo", "cockroach")
FORMAT_FILES = [
    "tls.crt",
    "tls.key",
    "tls.cas",
    "mongo.crt",
    "mongo.cas",
    "cockroach/node.crt",
    "cockroach/node.key",
    "cockroach/ca.crt",
]
CAS = ["teleport-host-ca.crt", "teleport-user-ca.crt", "teleport-database-ca.crt"]
ARTIFACTS = ["key-cert.pub", "tlscert", "key", "key.pub", ".write-test"]


def output(*templates: str, names: FileNames | None = None) -> Output:
    return Output(Path("/d"), templates=templates, names=names or FileNames())


def names_of(layout: Layout, *templates: str) -> list[str]:
    return [file.name for file in destination_files(output(*templates), MATERIAL, layout)]


def contents_of(layout: Layout, *templates: str) -> dict[str, bytes]:
    files = destination_files(output(*templates), MATERIAL, layout)
    return {file.name: file.content for file in files}


def test_v14_writes_artifacts_then_authorities_then_identity_then_formats() -> None:
    assert names_of("v14", *ALL_FORMATS) == [*ARTIFACTS, *CAS, "identity", *FORMAT_FILES]


def test_v18_writes_authorities_and_identity_first() -> None:
    assert names_of("v18", *ALL_FORMATS) == [*CAS, "identity", *ARTIFACTS, *FORMAT_FILES]


def test_v12_writes_the_users_templates_before_those_that_are_always_there() -> None:
    assert names_of("v12", *ALL_FORMATS) == [
        *ARTIFACTS,
        *FORMAT_FILES,
        "known_hosts",
        "ssh_config",
        "identity",
        *CAS,
    ]


def test_v12_writes_a_template_once_in_the_users_place() -> None:
    assert names_of("v12", "tls_cas", "tls") == [
        *ARTIFACTS,
        *CAS,
        *FORMAT_FILES[:3],
        "known_hosts",
        "ssh_config",
        "identity",
    ]


def test_v9_has_authority_lists_and_no_database_ca() -> None:
    assert names_of("v9") == [
        "sshcert",
        "sshcacerts",
        "tlscert",
        "tlscacerts",
        "key",
        "key.pub",
        "known_hosts",
        "ssh_config",
        "identity",
        "teleport-host-ca.crt",
        "teleport-user-ca.crt",
    ]


@pytest.mark.parametrize("layout", ["v9", "v12", "v14", "v18"])
def test_the_certificate_is_always_written_before_its_key(layout: Layout) -> None:
    names = names_of(layout)
    assert names.index("tlscert") < names.index("key")


@pytest.mark.parametrize("layout", ["v9", "v12", "v14", "v18"])
def test_templates_that_the_lab_does_not_write_are_left_out(layout: Layout) -> None:
    assert names_of(layout, "kubernetes", "ssh_host_cert") == names_of(layout)


def test_authority_lists_of_v9_are_joined_by_a_dollar() -> None:
    contents = contents_of("v9")
    assert contents["tlscacerts"] == b"HOST2\n$HOST1\n$USER2\n$USER1\n"
    assert contents["sshcacerts"] == b"SSHHOSTCA\n$SSHUSERCA\n"


def test_each_file_has_its_content() -> None:
    assert contents_of("v14", *ALL_FORMATS) == {
        "key-cert.pub": b"SSHCERT\n",
        "tlscert": b"CERT\n",
        "key": b"KEY\n",
        "key.pub": b"PUB\n",
        ".write-test": b"",
        "teleport-host-ca.crt": b"HOST2\nHOST1\n",
        "teleport-user-ca.crt": b"USER2\nUSER1\n",
        "teleport-database-ca.crt": b"DB2\nDB1\n",
        "identity": b"KEY\nSSHCERT\nCERT\n@cert-authority x\nHOST2\nHOST1\n",
        "tls.crt": b"CERT\n",
        "tls.key": b"KEY\n",
        "tls.cas": b"HOST2\nHOST1\n",
        "mongo.crt": b"CERT\nKEY\n",
        "mongo.cas": b"DB2\nDB1\n",
        "cockroach/node.crt": b"CERT\n",
        "cockroach/node.key": b"KEY\n",
        "cockroach/ca.crt": b"DB2\nDB1\n",
    }


def test_v9_formats_take_the_host_ca_for_the_missing_database_ca() -> None:
    contents = contents_of("v9", "cockroach", "mongo")
    assert contents["cockroach/ca.crt"] == contents["mongo.cas"] == b"HOST2\nHOST1\n"


def test_the_identity_file_has_its_parts_in_order() -> None:
    assert identity_file(MATERIAL) == b"KEY\nSSHCERT\nCERT\n@cert-authority x\nHOST2\nHOST1\n"


def test_names_can_be_changed() -> None:
    names = FileNames("id", "web", "m", "c", "h.crt", "u.crt", "d.crt")
    files = destination_files(output(*ALL_FORMATS, names=names), MATERIAL, "v14")
    assert [file.name for file in files][len(ARTIFACTS) :] == [
        "h.crt",
        "u.crt",
        "d.crt",
        "id",
        "web.crt",
        "web.key",
        "web.cas",
        "m.crt",
        "m.cas",
        "c/node.crt",
        "c/node.key",
        "c/ca.crt",
    ]


def test_v9_omits_the_database_ca_under_any_name() -> None:
    files = destination_files(output(names=FileNames(database_ca="d.crt")), MATERIAL, "v9")
    assert "d.crt" not in [file.name for file in files]


def test_no_private_key_is_shown() -> None:
    files = destination_files(output(*ALL_FORMATS), MATERIAL, "v14")
    assert "KEY" not in repr(files) + repr(MATERIAL)
