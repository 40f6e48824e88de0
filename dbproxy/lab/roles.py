"""Teleport roles, as far as they decide about databases: a stand-in for Teleport's lib/services.

A role document is what `tctl create -f role.yaml` takes. Matching follows lib/services/role.go and
lib/utils/replace.go: deny rules are greedy (any of labels, user or name is enough), allow rules are
not (one role must allow all three together); users and names match literally or by a lone `*`; a
label value may hold globs, or be a regular expression when it starts with `^` and ends with `$`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import yaml

from dbproxy.lab.errors import AccessDenied, RoleError

WILDCARD = "*"
VERSIONS = ("v3", "v4", "v5", "v6", "v7", "v8")

# The words of Teleport's database service.
DENIED = "access to db denied. User does not have permissions. Confirm database user and name."

Labels = Mapping[str, tuple[str, ...]]

_EVERYTHING: Labels = {WILDCARD: (WILDCARD,)}


@dataclass(frozen=True)
class Conditions:
    """The database part of a role's `allow` or `deny` section.

    Attributes:
        db_labels: Label key to accepted values; every key must match. Empty matches nothing.
        db_names: Accepted database names.
        db_users: Accepted database users.
    """

    db_labels: Labels = field(default_factory=dict)
    db_names: tuple[str, ...] = ()
    db_users: tuple[str, ...] = ()

    def match_any(self, labels: Mapping[str, str], user: str, name: str) -> bool:
        """Whether labels, user or name match: the test for deny."""
        return any(self._matches(labels, user, name))

    def match_all(self, labels: Mapping[str, str], user: str, name: str) -> bool:
        """Whether labels, user and name match together: the test for allow."""
        return all(self._matches(labels, user, name))

    def _matches(self, labels: Mapping[str, str], user: str, name: str) -> Iterator[bool]:
        yield _match_labels(self.db_labels, labels)
        yield _match_literal(self.db_users, user)
        yield _match_literal(self.db_names, name)


@dataclass(frozen=True)
class Role:
    """One role.

    Attributes:
        name: `metadata.name`.
        version: `v3` to `v8`.
        allow: What the role allows.
        deny: What the role denies to whoever holds it.
    """

    name: str
    version: str = "v7"
    allow: Conditions = field(default_factory=Conditions)
    deny: Conditions = field(default_factory=Conditions)

    @staticmethod
    def from_yaml(text: str) -> list[Role]:
        """Read role documents, one or several, separated by `---`.

        Keys of `spec` that have nothing to do with databases are accepted and ignored.

        Raises:
            RoleError: The text is not YAML, holds no role, or a role is malformed; the text names
                the document and the key.
        """
        try:
            documents = [document for document in yaml.safe_load_all(text) if document is not None]
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            # PyYAML lets the errors of impossible dates, endless numbers and deep nesting through.
            raise RoleError(f"role: not valid YAML: {_one_line(error)}") from error
        if not documents:
            raise RoleError("role: the text holds no document")
        return [_role(_Reader(doc, f"role {n}")) for n, doc in enumerate(documents, start=1)]


def check_access(roles: Sequence[Role], *, labels: Mapping[str, str], user: str, name: str) -> None:
    """Decide whether holders of `roles` may use a PostgreSQL database.

    Args:
        roles: The roles of the user.
        labels: Labels of the database resource.
        user: Database user.
        name: Database name.

    Raises:
        AccessDenied: A role denies it, or none allows labels, user and name together.
    """
    if any(role.deny.match_any(labels, user, name) for role in roles):
        raise AccessDenied(DENIED)
    if not any(role.allow.match_all(labels, user, name) for role in roles):
        raise AccessDenied(DENIED)


def _match_literal(selectors: Sequence[str], value: str) -> bool:
    return WILDCARD in selectors or value in selectors


def _match_labels(selector: Labels, labels: Mapping[str, str]) -> bool:
    if selector.get(WILDCARD) == (WILDCARD,):
        return True  # also a resource without labels
    return bool(selector) and all(
        key in labels and _match_label(values, labels[key]) for key, values in selector.items()
    )


def _match_label(values: Sequence[str], label: str) -> bool:
    return any(_pattern(value).search(label) for value in values)


def _pattern(value: str) -> re.Pattern[str]:
    if value.startswith("^") and value.endswith("$"):
        return re.compile(value)
    # A bare `*` matches every value, line breaks included; a glob's `*` stops at them, as in Go.
    if value == WILDCARD:
        return re.compile("")
    return re.compile(r"\A" + ".*".join(map(re.escape, value.split(WILDCARD))) + r"\Z")


@dataclass(frozen=True)
class _Reader:
    """A value of a role document and where it stands, for messages."""

    value: object
    document: str
    path: str = ""

    def fail(self, problem: str) -> RoleError:
        place = f"{self.document}: {self.path}" if self.path else self.document
        return RoleError(f"{place}: {problem}")

    def expected(self, what: str) -> RoleError:
        found = "nothing" if self.value is None else f"{type(self.value).__name__}"
        return self.fail(f"expected {what}, found {found}")

    def get(self, key: str) -> _Reader:
        path = f"{self.path}.{key}" if self.path else key
        return _Reader(self.mapping().get(key), self.document, path)

    def mapping(self) -> Mapping[object, object]:
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            raise self.expected("a mapping")
        return self.value

    def string(self) -> str:
        if not isinstance(self.value, str) or not self.value:
            raise self.expected("a string")
        return self.value

    def strings(self) -> tuple[str, ...]:
        if self.value is None:
            return ()
        if not isinstance(self.value, list) or not all(isinstance(v, str) for v in self.value):
            raise self.expected("a list of strings")
        return tuple(self.value)

    def string_or_strings(self) -> tuple[str, ...]:
        if isinstance(self.value, str):
            return (self.value,)
        if not isinstance(self.value, list) or not all(isinstance(v, str) for v in self.value):
            raise self.expected("a string or a list of strings")
        return tuple(self.value)


def _role(document: _Reader) -> Role:
    if document.get("kind").string() != "role":
        raise document.get("kind").fail(f"expected role, found {document.get('kind').value}")
    version = document.get("version").string()
    if version not in VERSIONS:
        raise document.get("version").fail(
            f"expected one of {', '.join(VERSIONS)}, found {version}"
        )
    return Role(
        name=document.get("metadata").get("name").string(),
        version=version,
        allow=_allow(document.get("spec").get("allow"), version),
        deny=_conditions(document.get("spec").get("deny")),
    )


def _allow(section: _Reader, version: str) -> Conditions:
    conditions = _conditions(section)
    if conditions.db_labels.get(WILDCARD, (WILDCARD,)) != (WILDCARD,):
        raise section.get("db_labels").get(WILDCARD).fail("a label * takes the value * only")
    if version == "v3" and section.get("db_labels").value is None:
        return replace(conditions, db_labels=_EVERYTHING)  # only v3 defaults to every database
    return conditions


def _conditions(section: _Reader) -> Conditions:
    return Conditions(
        db_labels=_labels(section.get("db_labels")),
        db_names=section.get("db_names").strings(),
        db_users=section.get("db_users").strings(),
    )


def _labels(section: _Reader) -> Labels:
    labels = {}
    for key in section.mapping():
        if not isinstance(key, str):
            raise section.fail(f"expected a label name, found {key!r}")
        labels[key] = _label_values(section.get(key))
    return labels


def _label_values(reader: _Reader) -> tuple[str, ...]:
    values = reader.string_or_strings()
    for value in values:
        try:
            _pattern(value)
        except re.error as error:
            raise reader.fail(f"not a regular expression: {value!r} ({error})") from error
    return values


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
