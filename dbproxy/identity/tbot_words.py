"""Words in tbot's configuration that mean nothing to dbproxy.

Newer versions of tbot keep adding keys and types, so an unknown one is no error. But when something
is not found, a misspelt word is the likeliest reason, and it is worth being named.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from dbproxy.identity.yaml_nodes import YamlValue

__all__ = ["UnknownWord", "in_one_sentence", "unknown_words"]

_KEYS: Final = (
    *("version", "proxy_server", "auth_server", "onboarding", "storage"),
    *("services", "outputs", "destinations", "insecure", "debug", "oneshot", "fips"),
    *("credential_ttl", "certificate_ttl", "renewal_interval", "renew_interval"),
    *("diag_addr", "diag_socket_for_updater", "join_uri", "log", "log_format"),
)
"""At the root, in all versions (lib/tbot/config/config.go)."""
_V1_KEYS: Final = (
    *("directory", "memory", "configs", "roles", "kinds"),
    *("database", "app", "cluster", "kubernetes_cluster", "kubernetes"),
)
"""Of a destination in version 1 (tool/tbot/config/config_destination.go)."""
_TYPES: Final = (
    *("database", "database-tunnel", "identity", "application", "application-tunnel"),
    *("application-proxy", "kubernetes", "kubernetes/v2", "kubernetes/argo-cd", "ssh_host"),
    *("ssh-multiplexer", "spiffe-svid", "spiffe-workload-api", "workload-identity-x509"),
    *("workload-identity-jwt", "workload-identity-api", "unstable-client-credential", "noop"),
    *("workload-identity-aws-roles-anywhere", "example"),
)
"""Of an output or service (lib/tbot/config)."""
_ALIKE: Final = 0.75
"""How alike a misspelt word is to what was meant, by difflib's ratio: two letters in ten."""
_MOST_TOLD: Final = 3


@dataclass(frozen=True, slots=True)
class UnknownWord:
    """A key or a type that dbproxy does not know.

    Attributes:
        line: Where it stands, from 1.
        word: As written.
        role: `key` or `type`.
        similar: The known word that may be meant, if there is one.
    """

    line: int
    word: str
    role: str
    similar: str | None

    def __str__(self) -> str:
        text = f"line {self.line}: `{self.word}` is not a {self.role} that dbproxy knows"
        return f"{text}; did you mean `{self.similar}`?" if self.similar else text


def unknown_words(root: YamlValue) -> tuple[UnknownWord, ...]:
    """The unknown words of a configuration that has been understood otherwise.

    Those that look misspelt come first.
    """
    found = sorted(_all_unknown(root), key=lambda word: (word.similar is None, word.line))
    return tuple(found)


def in_one_sentence(words: tuple[UnknownWord, ...]) -> str:
    """What to add to the message that something was not found; empty without any."""
    return "".join(f"; {word}" for word in words[:_MOST_TOLD])


def _all_unknown(root: YamlValue) -> Iterator[UnknownWord]:
    yield from _unknown_keys(root, _KEYS)
    for entry in _entries(root, "destinations"):
        yield from _unknown_keys(entry, _V1_KEYS)
    for key in ("outputs", "services"):
        for entry in _entries(root, key):
            kind = entry.get("type")
            if kind is not None and kind.is_text() and kind.text() not in _TYPES:
                yield _unknown(kind.line, kind.text(), "type", _TYPES)


def _entries(root: YamlValue, key: str) -> tuple[YamlValue, ...]:
    value = root.get(key)
    return value.items() if value is not None else ()


def _unknown_keys(mapping: YamlValue, known: tuple[str, ...]) -> Iterator[UnknownWord]:
    for name, line in mapping.named_lines():
        if name not in known:
            yield _unknown(line, name, "key", known)


def _unknown(line: int, word: str, role: str, known: tuple[str, ...]) -> UnknownWord:
    similar = get_close_matches(word, known, 1, _ALIKE)
    return UnknownWord(line, word, role, similar[0] if similar else None)
