"""Reading a YAML file into values with places, however broken it is.

PyYAML's composer is recursive, takes the last of two equal keys and raises half a dozen kinds of
errors; here it gets a limit of depth, refuses a key that appears twice, and has one kind of error.
"""

from collections.abc import Iterator
from pathlib import Path

import yaml

from dbproxy.errors import Code, ConfigError
from dbproxy.identity.yaml_nodes import DEEPEST, NULL, YamlValue, join_keys, place

__all__ = ["parse_yaml"]


def parse_yaml(data: bytes, source: Path) -> YamlValue | None:
    """Read one YAML document in UTF-8.

    Returns:
        The root, or `None` when the document is empty.

    Raises:
        ConfigError: With `Code.CONFIG_MALFORMED`: it is not YAML, is nested too deeply, or has a
            key twice. The text starts with file, line and column.
    """
    node = _compose(_decode(data, source), source)
    if node is None or node.tag == NULL:
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
        raise _not_yaml(place(source, error.problem_mark), _describe(error)) from error
    except (ValueError, OverflowError) as error:  # "\\UFFFFFFFF", or a version of 5000 digits
        what = "a number or an escaped character is out of range"
        raise _not_yaml(place(source, loader.get_mark()), what) from error


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
        if self.depth >= DEEPEST:
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
            child = YamlValue(node, value.source, join_keys(value.key, name))
            if name in seen:
                raise YamlValue(key, value.source, child.key).error("the key appears twice")
            seen.add(name)
            yield child


def _key_name(key: yaml.Node, parent: YamlValue) -> str:
    if not isinstance(key, yaml.ScalarNode):
        raise YamlValue(key, parent.source, parent.key).error("a key must be text")
    return str(key.value)


def _describe(error: yaml.MarkedYAMLError) -> str:
    parts = (error.context, error.problem)
    return ", ".join(part for part in parts if part) or "a syntax error"


def _not_yaml(place: str, what: str) -> ConfigError:
    next_step = "Correct the file at that line."
    return ConfigError(Code.CONFIG_MALFORMED, f"{place}: {what}", next_step=next_step)
