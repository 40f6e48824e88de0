"""YAML with places: every value knows the line, the column and the key that it came from.

Works on the nodes of PyYAML's composer, so that nothing is constructed from tags, and a text that
YAML 1.1 would take for a number or a truth value (`service: on`) can still be read as text, as Go's
YAML library does for fields of type string.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import yaml

from dbproxy.errors import Code, ConfigError
from dbproxy.identity.duration import parse_go_duration

__all__ = ["YamlValue", "parse_yaml"]

_NULL: Final = "tag:yaml.org,2002:null"
_BOOL: Final = "tag:yaml.org,2002:bool"
_MERGE: Final = "tag:yaml.org,2002:merge"
_TRUE: Final = frozenset({"true", "yes", "on"})
_PLAIN_KEY: Final = re.compile(r"[\w-]+")
_DEEPEST: Final = 50
"""Levels of nesting: a real file has about five, and the composer is recursive."""


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

    def error(self, what: str) -> ConfigError:
        """The error that says `what` is wrong with this value, and where it stands."""
        place = _place(self.source, self.node.start_mark)
        return ConfigError(Code.CONFIG_MALFORMED, f"{place}: {_prefix(self.key)}{what}")

    def get(self, key: str) -> "YamlValue | None":
        """The value of `key` in this mapping; `None` when it is absent or null.

        Raises:
            ConfigError: This value is not a mapping.
        """
        node = _find(self._mapping(), key, _DEEPEST)
        if node is None or node.tag == _NULL:
            return None
        return YamlValue(node, self.source, _join(self.key, key))

    def require(self, key: str) -> "YamlValue":
        """As `get`, for a key that must be there.

        Raises:
            ConfigError: This value is not a mapping, or `key` is absent, null or an empty text.
        """
        value = self.get(key)
        if value is None:
            place = _place(self.source, self.node.start_mark)
            name = _join(self.key, key)
            raise ConfigError(Code.CONFIG_MALFORMED, f"{place}: {name}: is missing")
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
            if node.tag != _NULL
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


def parse_yaml(data: bytes, source: Path) -> YamlValue | None:
    """Read one YAML document in UTF-8.

    Returns:
        The root, or `None` when the document is empty.

    Raises:
        ConfigError: With `Code.CONFIG_MALFORMED`: it is not YAML, is nested too deeply, or has a
        key
            twice. The text starts with file, line and column.
    """
    node = _compose(_decode(data, source), source)
    if node is None or node.tag == _NULL:
        return None
    root = YamlValue(node, source, "")
    _refuse_duplicate_keys(root)
    return root


def _decode(data: bytes, source: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise _not_yaml(f"{source}:{line}:{column}", "the file is not UTF-8") from None


def _compose(text: str, source: Path) -> yaml.Node | None:
    loader = _load(text, source)
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(_place(source, error.problem_mark), _describe(error)) from error
    except (ValueError, OverflowError) as error:  # "\\UFFFFFFFF", or a version of 5000 digits
        what = "a number or an escaped character is out of range"
        raise _not_yaml(_place(source, loader.get_mark()), what) from error


def _load(text: str, source: Path) -> "_Loader":
    try:
        return _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        what = f"the character U+{ord(text[error.position]):04X} is not allowed"
        raise _not_yaml(f"{source}:{line}:{column}", what) from error


class _Loader(yaml.SafeLoader):
    """The safe composer with a limit of depth, since it is recursive."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.depth >= _DEEPEST:
            mark = self.get_mark()
            raise yaml.MarkedYAMLError(problem="the nesting is too deep", problem_mark=mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _refuse_duplicate_keys(root: YamlValue) -> None:
    """Walk the whole document; what anchors share is visited once."""
    visited: set[int] = set()
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if id(value.node) not in visited:
            visited.add(id(value.node))
            waiting.extend(_children(value))


def _children(value: YamlValue) -> Iterator[YamlValue]:
    if isinstance(value.node, yaml.SequenceNode):
        for index, node in enumerate(value.node.value):
            yield YamlValue(node, value.source, f"{value.key}[{index}]")
    elif isinstance(value.node, yaml.MappingNode):
        seen: set[str] = set()
        for key, node in value.node.value:
            name = _key_name(key, value)
            child = YamlValue(node, value.source, _join(value.key, name))
            if name in seen:
                raise YamlValue(key, value.source, child.key).error("the key appears twice")
            seen.add(name)
            yield child


def _key_name(key: yaml.Node, parent: YamlValue) -> str:
    if not isinstance(key, yaml.ScalarNode):
        raise YamlValue(key, parent.source, parent.key).error("a key must be text")
    return str(key.value)


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


def _join(parent: str, key: str) -> str:
    name = key if _PLAIN_KEY.fullmatch(key) else repr(key)
    return f"{parent}.{name}" if parent else name


def _prefix(key: str) -> str:
    return f"{key}: " if key else ""


def _describe(error: yaml.MarkedYAMLError) -> str:
    parts = (error.context, error.problem)
    return ", ".join(part for part in parts if part) or "a syntax error"


def _place(source: Path, mark: yaml.Mark | None) -> str:
    if mark is None:
        return str(source)
    line, column = _line_and_column(mark)
    return f"{source}:{line}:{column}"


def _line_and_column(mark: yaml.Mark) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1


def _not_yaml(place: str, what: str) -> ConfigError:
    return ConfigError(Code.CONFIG_MALFORMED, f"{place}: {what}")
