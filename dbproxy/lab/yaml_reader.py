"""A small typed reader over YAML nodes, for messages that name file, line and key.

PyYAML's loaders drop the positions, so the reader works on composed nodes. Scalars follow Go's
yaml.v3, with which tbot reads its file: a number or boolean is fine where a string is expected, a
repeated key is not.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

import yaml

from dbproxy.lab.durations import parse_duration
from dbproxy.lab.errors import TbotConfigError

_TAG = "tag:yaml.org,2002:"
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class YamlReader:
    """One value of a document.

    Attributes:
        node: The composed node; None for a key that is absent.
        source: Name of the file, for messages.
        path: Keys that lead here, such as `outputs[0].destination.path`.
        line: Line of the value, or of the enclosing mapping for an absent key; from 1.
    """

    node: yaml.Node | None
    source: str
    path: str
    line: int

    @property
    def absent(self) -> bool:
        """Whether the key is missing or its value is null."""
        return self.node is None or self.node.tag == f"{_TAG}null"

    def error(self, problem: str) -> TbotConfigError:
        """Return (not raise) an error that names file, line and key."""
        where = f"{self.source}: line {self.line}"
        return TbotConfigError(
            f"{where}: {self.path}: {problem}" if self.path else where + f": {problem}"
        )

    def check_keys(self, known: Collection[str]) -> None:
        """Refuse keys that are not known, as tbot's strict decoder does.

        Raises:
            TbotConfigError: The value is not a mapping, or has an unknown or repeated key.
        """
        seen: set[str] = set()
        for key in self._keys():
            name = key.node.value if isinstance(key.node, yaml.ScalarNode) else ""
            if name not in known:
                raise key.error(f"unknown key; expected one of {', '.join(sorted(known))}")
            if name in seen:
                raise key.error("the key appears twice")
            seen.add(name)

    def _keys(self) -> list[YamlReader]:
        return [self._child(key, _key_text(key)) for key, _ in self._pairs()]

    def _pairs(self) -> list[tuple[yaml.Node, yaml.Node]]:
        if self.absent:
            return []
        if not isinstance(self.node, yaml.MappingNode):
            raise self._expected("a mapping")
        pairs: list[tuple[yaml.Node, yaml.Node]] = self.node.value
        return pairs

    def _child(self, node: yaml.Node, key: str) -> YamlReader:
        path = f"{self.path}.{key}" if self.path else key
        return YamlReader(node, self.source, path, _line(node))

    def get(self, key: str) -> YamlReader:
        """Return the value of a key, absent or not.

        Raises:
            TbotConfigError: This value is not a mapping.
        """
        for name, value in self._pairs():
            if _key_text(name) == key:
                return self._child(value, key)
        path = f"{self.path}.{key}" if self.path else key
        return YamlReader(None, self.source, path, self.line)

    def single_entry(self) -> tuple[str, YamlReader]:
        """Return the only key of a mapping and its value.

        Raises:
            TbotConfigError: The value is not a mapping with exactly one key.
        """
        if len(pairs := self._pairs()) != 1:
            raise self.error("expected exactly one key")
        name = _key_text(pairs[0][0])
        return name, self._child(pairs[0][1], name)

    def items(self) -> list[YamlReader]:
        """Return the entries of a list; none when absent.

        Raises:
            TbotConfigError: The value is not a list.
        """
        if self.absent:
            return []
        if not isinstance(self.node, yaml.SequenceNode):
            raise self._expected("a list")
        return [
            YamlReader(node, self.source, f"{self.path}[{index}]", _line(node))
            for index, node in enumerate(self.node.value)
        ]

    @property
    def is_scalar(self) -> bool:
        """Whether the value is a scalar, null included."""
        return isinstance(self.node, yaml.ScalarNode)

    def string(self, default: str = "") -> str:
        """Return a string, or the default when absent.

        Raises:
            TbotConfigError: The value is a mapping or a list.
        """
        if self.absent:
            return default
        if not isinstance(self.node, yaml.ScalarNode):
            raise self._expected("a string")
        return _text(self.node)

    def required(self) -> str:
        """Return a string that must be there.

        Raises:
            TbotConfigError: The value is absent, empty, a mapping or a list.
        """
        if not (value := self.string()):
            raise self.error("should not be empty")
        return value

    def strings(self) -> tuple[str, ...]:
        """Return a list of strings; none when absent.

        Raises:
            TbotConfigError: The value is not a list of strings.
        """
        return tuple(item.required() for item in self.items())

    def boolean(self) -> bool:
        """Return a boolean, False when absent.

        Raises:
            TbotConfigError: The value is not a boolean.
        """
        text = self.string("false").lower()
        if text not in _BOOLEANS:
            raise self._expected("true or false")
        return _BOOLEANS[text]

    def duration(self) -> timedelta | None:
        """Return a positive Go duration, or None when absent.

        Raises:
            TbotConfigError: The value is not a duration, zero or negative.
        """
        if self.absent:
            return None
        try:
            value = parse_duration(self.string())
        except ValueError as error:
            raise self.error(str(error)) from error
        if value <= timedelta():
            raise self.error("should be longer than zero")
        return value

    def _expected(self, what: str) -> TbotConfigError:
        return self.error(f"expected {what}, found {_kind(self.node)}")


def read_yaml(text: str, source: str) -> YamlReader:
    """Compose one YAML document.

    Args:
        text: The document.
        source: Name of the file, for messages.

    Raises:
        TbotConfigError: The text is not one valid YAML document.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = error.problem or error.context or "not valid"
        raise TbotConfigError(f"{source}: line {line}: not valid YAML: {problem}") from error
    except (yaml.YAMLError, RecursionError) as error:
        text_of = " ".join(str(error).split())
        raise TbotConfigError(f"{source}: line 1: not valid YAML: {text_of}") from error
    return YamlReader(node, source, "", _line(node) if node else 1)


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _text(node: yaml.ScalarNode) -> str:
    text: str = node.value
    return text


def _key_text(node: yaml.Node) -> str:
    return _text(node) if isinstance(node, yaml.ScalarNode) else f"<{_kind(node)}>"


def _kind(node: yaml.Node | None) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return "nothing" if node is None else "a scalar"
