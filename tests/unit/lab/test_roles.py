from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dbproxy.lab.errors import AccessDenied, RoleError
from dbproxy.lab.roles import Conditions, Role, check_access

GUIDE = """
kind: role
version: v5
metadata:
  name: machine-id-db
spec:
  allow:
    db_labels:
      '*': '*'
    db_names: [example]
    db_users: [alice]
    rules:
      - resources: [db_server, db]
        verbs: [read, list]
"""


def role(**allow: object) -> Role:
    section = {"db_labels": {"*": "*"}, "db_names": ["*"], "db_users": ["*"]} | allow
    return Role.from_yaml(
        f"{{kind: role, version: v7, metadata: {{name: r}}, spec: {{allow: {section!r}}}}}"
    )[0]


def denying(**deny: object) -> Role:
    allow = {"db_labels": {"*": "*"}, "db_names": ["*"], "db_users": ["*"]}
    spec = {"allow": allow, "deny": deny}
    return Role.from_yaml(f"{{kind: role, version: v7, metadata: {{name: d}}, spec: {spec!r}}}")[0]


def allowed(
    *roles: Role,
    labels: Mapping[str, str] | None = None,
    user: str = "alice",
    name: str = "example",
) -> bool:
    try:
        check_access(roles, labels=labels or {}, user=user, name=name)
    except AccessDenied:
        return False
    return True


def test_the_role_of_the_guide_is_read() -> None:
    assert Role.from_yaml(GUIDE) == [
        Role(
            "machine-id-db",
            "v5",
            allow=Conditions({"*": ("*",)}, db_names=("example",), db_users=("alice",)),
        )
    ]


def test_the_role_of_the_guide_allows_alice_on_example_and_nobody_elsewhere() -> None:
    (guide,) = Role.from_yaml(GUIDE)
    assert allowed(guide, labels={"env": "dev"})
    assert allowed(guide)
    assert not allowed(guide, user="bob")
    assert not allowed(guide, name="postgres")


def test_a_denial_has_the_words_of_teleport() -> None:
    with pytest.raises(AccessDenied) as caught:
        check_access([], labels={}, user="alice", name="example")
    assert str(caught.value) == (
        "access to db denied. User does not have permissions. Confirm database user and name."
    )


def test_several_documents_make_several_roles() -> None:
    text = f"{GUIDE}\n---\n{GUIDE.replace('machine-id-db', 'second')}\n---\n"
    assert [each.name for each in Role.from_yaml(text)] == ["machine-id-db", "second"]


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ({"*": "*"}, {}, True),
        ({"*": ["*"]}, {"env": "dev"}, True),
        ({}, {"env": "dev"}, False),
        ({"env": "dev"}, {"env": "dev", "team": "a"}, True),
        ({"env": "dev"}, {"env": "prod"}, False),
        ({"env": "dev"}, {"env": "development"}, False),
        ({"env": "dev"}, {}, False),
        ({"env": ["dev", "test"]}, {"env": "test"}, True),
        ({"env": []}, {"env": "test"}, False),
        ({"env": "dev", "team": "a"}, {"env": "dev"}, False),
        ({"env": "dev", "team": "a"}, {"env": "dev", "team": "a"}, True),
        ({"env": "*"}, {"env": "anything"}, True),
        ({"env": "*"}, {"env": ""}, True),
        ({"env": "*"}, {"team": "a"}, False),
        ({"env": "dev-*"}, {"env": "dev-7"}, True),
        ({"env": "dev-*"}, {"env": "my-dev-7"}, False),
        ({"env": "*-eu-*"}, {"env": "dev-eu-1"}, True),
        ({"env": "d.v"}, {"env": "dev"}, False),
        ({"env": "^d.v$"}, {"env": "dev"}, True),
        ({"env": "^dev|test$"}, {"env": "test"}, True),
        ({"env": "^(dev|test)$"}, {"env": "prod"}, False),
        ({"env": "^dev"}, {"env": "dev"}, False),
        ({"env": "^dev"}, {"env": "^dev"}, True),
        ({"e*": "dev"}, {"env": "dev"}, False),
        ({"env": "Dev"}, {"env": "dev"}, False),
    ],
)
def test_labels_match_as_in_teleport(
    selector: dict[str, object], labels: dict[str, str], expected: bool
) -> None:
    assert allowed(role(db_labels=selector), labels=labels) is expected


@pytest.mark.parametrize(
    ("users", "user", "expected"),
    [
        (["alice"], "alice", True),
        (["alice"], "Alice", False),
        (["*"], "anyone", True),
        (["al*"], "alice", False),
        (["al*"], "al*", True),
        (["^a.*$"], "alice", False),
        ([], "alice", False),
    ],
)
def test_users_and_names_match_literally_or_by_a_lone_star(
    users: list[str], user: str, expected: bool
) -> None:
    assert allowed(role(db_users=users), user=user) is expected
    assert allowed(role(db_names=users), name=user) is expected


def test_one_role_must_allow_labels_user_and_name_together() -> None:
    alice_in_dev = role(db_labels={"env": "dev"}, db_users=["alice"])
    bob_anywhere = role(db_users=["bob"])
    roles = (alice_in_dev, bob_anywhere)
    assert allowed(*roles, labels={"env": "dev"}, user="alice")
    assert allowed(*roles, labels={"env": "prod"}, user="bob")
    assert not allowed(*roles, labels={"env": "prod"}, user="alice")


@pytest.mark.parametrize(
    "deny",
    [{"db_users": ["alice"]}, {"db_names": ["example"]}, {"db_labels": {"env": "dev"}}],
)
def test_deny_beats_allow_and_needs_only_one_match(deny: dict[str, object]) -> None:
    assert not allowed(role(), denying(**deny), labels={"env": "dev"})
    assert allowed(role(), denying(**deny), labels={"env": "prod"}, user="bob", name="other")


def test_deny_in_the_same_role_counts_too() -> None:
    assert not allowed(denying(db_users=["alice"]))
    assert allowed(denying(db_users=["alice"]), user="bob")


def test_only_version_3_defaults_to_every_database() -> None:
    text = (
        "{kind: role, version: %s, metadata: {name: r},"
        " spec: {allow: {db_names: ['*'], db_users: ['*']}}}"
    )
    assert allowed(*Role.from_yaml(text % "v3"))
    assert not allowed(*Role.from_yaml(text % "v4"))
    assert not allowed(*Role.from_yaml(text % "v7"))


def test_a_role_without_a_spec_allows_nothing() -> None:
    assert not allowed(*Role.from_yaml("{kind: role, version: v7, metadata: {name: r}}"))


HEAD = "kind: role\nversion: v7\nmetadata: {name: r}\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no document"),
        ("a: [", "not valid YAML"),
        ("a: 2026-99-99", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("[]", "role 1: expected a mapping, found list"),
        ("kind: user\nversion: v7\nmetadata: {name: r}", "role 1: kind: expected role, found user"),
        ("version: v7\nmetadata: {name: r}", "role 1: kind: expected a string, found nothing"),
        ("kind: role\nversion: v9\nmetadata: {name: r}", "role 1: version: expected one of v3"),
        ("kind: role\nversion: v7", "role 1: metadata.name: expected a string, found nothing"),
        ("kind: role\nversion: v7\nmetadata: x", "role 1: metadata: expected a mapping"),
        (HEAD + "spec: []", "role 1: spec: expected a mapping, found list"),
        (HEAD + "spec: {allow: 1}", "role 1: spec.allow: expected a mapping, found int"),
        (HEAD + "spec: {allow: {db_users: alice}}", "spec.allow.db_users: expected a list of str"),
        (HEAD + "spec: {deny: {db_names: [1]}}", "spec.deny.db_names: expected a list of strings"),
        (HEAD + "spec: {allow: {db_labels: {env: 1}}}", "spec.allow.db_labels.env: expected a str"),
        (HEAD + "spec: {allow: {db_labels: {env: [1]}}}", "spec.allow.db_labels.env: expected a s"),
        (HEAD + "spec: {allow: {db_labels: {1: a}}}", "spec.allow.db_labels: expected a label nam"),
        (HEAD + "spec: {allow: {db_labels: {env: '^[$'}}}", "db_labels.env: not a regular express"),
        (HEAD + "spec: {allow: {db_labels: {'*': dev}}}", "spec.allow.db_labels.*: a label * take"),
        (f"{HEAD}---\nkind: role", "role 2: version: expected a string, found nothing"),
    ],
)
def test_a_malformed_role_names_document_and_key(text: str, problem: str) -> None:
    with pytest.raises(RoleError) as caught:
        Role.from_yaml(text)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["db_labels", "db_names", "db_users", "allow", "deny", "*", "env"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(spec=VALUES, kind=SCALARS | st.just("role"), version=SCALARS | st.just("v7"))
def test_any_document_is_a_role_or_a_role_error(
    spec: object, kind: object, version: object
) -> None:
    document = {"kind": kind, "version": version, "metadata": {"name": "r"}, "spec": spec}
    with suppress(RoleError):
        (made,) = Role.from_yaml(yaml.safe_dump(document))
        assert allowed(made, labels={"env": "dev"}) in {True, False}


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_role_or_a_role_error(text: str) -> None:
    with suppress(RoleError):
        assert Role.from_yaml(text)
