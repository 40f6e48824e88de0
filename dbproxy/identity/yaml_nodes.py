"""YAML with places: every value knows the line, the column and the key that it came from.

Works on the nodes of PyYAML's composer, so that nothing is constructed from tags, and a text that
YAML 1.1 would take for a number or a truth value (`service: on`) can still be read as text, as Go's
YAML library does for fields of type string.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import yaml

from dbproxy.errors import Code, ConfigError
from dbproxy.identity.duration import parse_go_duration

__all__ = ["DEEPEST", "NOT_TBOTS", "NULL", "YamlValue", "join_keys", "place"]

NULL: Final = "tag:yaml.org,2002:null"
_BOOL: Final = "tag:yaml.org,2002:bool"
_MERGE: Final = "tag:yaml.org,2002:merge"
_TRUE: Final = frozenset({"true", "yes", "on"})
_PLAIN_KEY: Final = re.compile(r"[\w-]+")
DEEPEST: Final = 50
"""Levels of nesting: a real file has about five, and the composer is recursive."""


NOT_TBOTS: Final = "Check that this is the configuration file that tbot is started with."
"""The next step where no key is to blame, but the file as a whole."""


@dataclass(frozen=True, slots=True)
class YamlValue:
    """One value of a YAML file that is not null.

    Attributes:
        node: What PyYAML's composer made of it.
        source: The file, for the errors' texts.
        key: The path of keys that leads to it, such as `outputs[0].destination`; empty at the root.
    """

    node: yaml.Node
    source: Path
    key: str

    @property
    def line(self) -> int:
        """The line of the value, from 1."""
        return _line_and_column(self.node.start_mark)[0]

    @property
    def place(self) -> str:
        """Where the value stands, as messages begin: `FILE:LINE:COLUMN: KEY`."""
        where = place(self.source, self.node.start_mark)
        return f"{where}: {self.key}" if self.key else where

    def error(self, what: str) -> ConfigError:
        """The error that says `what` is wrong with this value, and where it stands."""
        next_step = None if self.key else NOT_TBOTS
        return ConfigError(Code.CONFIG_MALFORMED, f"{self.place}: {what}", next_step=next_step)

    def get(self, key: str) -> "YamlValue | None":
        """The value of `key` in this mapping; `None` when it is absent or null.

        Raises:
            ConfigError: This value is not a mapping.
        """
        node = _find(self._mapping(), key, DEEPEST)
        if node is None or node.tag == NULL:
            return None
        return YamlValue(node, self.source, join_keys(self.key, key))

    def require(self, key: str) -> "YamlValue":
        """As `get`, for a key that must be there.

        Raises:
            ConfigError: This value is not a mapping, or `key` is absent, null or an empty text.
        """
        value = self.get(key)
        if value is None:
            missing = YamlValue(self.node, self.source, join_keys(self.key, key))
            raise missing.error("is missing")
        if isinstance(value.node, yaml.ScalarNode) and not value.node.value:
            raise value.error("must not be empty")
        return value

    def items(self) -> "tuple[YamlValue, ...]":
        """The elements of this list that are not null.

        Raises:
            ConfigError: This value is not a list.
        """
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error(f"must be a list, not {_kind(self.node)}")
        return tuple(
            YamlValue(node, self.source, f"{self.key}[{index}]")
            for index, node in enumerate(self.node.value)
            if node.tag != NULL
        )

    def names(self) -> tuple[str, ...]:
        """The keys of this mapping, as they are written.

        Raises:
            ConfigError: This value is not a mapping.
        """
        return tuple(str(key.value) for key, _value in self._mapping().value)

    def named_lines(self) -> tuple[tuple[str, int], ...]:
        """The keys of this mapping, each with its line, without the one that merges another.

        Raises:
            ConfigError: This value is not a mapping.
        """
        return tuple(
            (str(key.value), _line_and_column(key.start_mark)[0])
            for key, _value in self._mapping().value
            if key.tag != _MERGE
        )

    def is_text(self) -> bool:
        """Whether this is a single value rather than a list or a mapping."""
        return isinstance(self.node, yaml.ScalarNode)

    def text(self) -> str:
        """This value as text, whatever YAML would make of it.

        Raises:
            ConfigError: This value is a list or a mapping, or holds what no name can hold.
        """
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.error(f"must be text, not {_kind(self.node)}")
        value = str(self.node.value)
        if not value.isprintable():
            raise self.error("must not hold control characters")
        return value

    def optional_text(self, key: str) -> str | None:
        """The text of `key` in this mapping; `None` when it is absent, null or empty.

        Raises:
            ConfigError: This value is not a mapping, or `key` holds no text.
        """
        value = self.get(key)
        return (value.text() or None) if value is not None else None

    def boolean(self) -> bool:
        """This value as a truth value.

        Raises:
            ConfigError: It is not one.
        """
        if self.node.tag != _BOOL:
            raise self.error("must be true or false")
        return self.text().lower() in _TRUE

    def duration(self) -> timedelta:
        """This value as a duration in Go's notation, such as `1h0m0s`.

        Raises:
            ConfigError: It is not one.
        """
        text = self.text()
        try:
            return parse_go_duration(text)
        except ValueError:
            raise self.error(f"must be a duration such as 20m or 1h0m0s, not {text!r}") from None

    def _mapping(self) -> yaml.MappingNode:
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(f"must be a mapping, not {_kind(self.node)}")
        return self.node


def _find(mapping: yaml.MappingNode, name: str, depth: int) -> yaml.Node | None:
    """The value of the key `name`, looked up in the mapping itself and then in what it merges."""
    merged: list[yaml.Node] = []
    for key, value in mapping.value:
        if key.tag == _MERGE:
            merged.extend(value.value if isinstance(value, yaml.SequenceNode) else [value])
        elif isinstance(key, yaml.ScalarNode) and key.value == name:
            found: yaml.Node = value
            return found
    for node in merged if depth > 0 else ():
        if isinstance(node, yaml.MappingNode):
            inherited = _find(node, name, depth - 1)
            if inherited is not None:
                return inherited
    return None


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a single value"


def join_keys(parent: str, key: str) -> str:
    """The path of `key` below the path `parent`; a key that is no plain word is quoted."""
    name = key if _PLAIN_KEY.fullmatch(key) else repr(key)
    return f"{parent}.{name}" if parent else name


def place(source: Path, mark: yaml.Mark | None) -> str:
    """Where something stands, as messages begin: `FILE:LINE:COLUMN`, both from 1."""
    if mark is None:
        return str(source)
    line, column = _line_and_column(mark)
    return f"{source}:{line}:{column}"


def _line_and_column(mark: yaml.Mark) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1
