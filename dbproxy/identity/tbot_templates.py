"""The `configs` of a version 1 destination: which formats tbot writes, and under which names.

Each element is the name of a template, or a mapping from the one name to its options
(tool/tbot/config/configtemplate.go). Templates that have nothing to do with certificates, and those
of versions to come, are passed over.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from dbproxy.identity.layout import FileNames, Format
from dbproxy.identity.yaml_nodes import YamlValue

__all__ = ["Templates", "read_templates"]

Templates = tuple[tuple[Format, ...], FileNames]
"""The formats in the order of the file, each once, and the names of all files."""

_OPTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "identity": {"file_name": "identity"},
    "tls": {"prefix": "tls_prefix"},
    "mongo": {"prefix": "mongo_prefix"},
    "cockroach": {"dir_name": "cockroach_directory"},
    "tls_cas": {
        "host_ca_path": "host_ca",
        "user_ca_path": "user_ca",
        "database_ca_path": "database_ca",
    },
}
"""The option of each template, and the field of `FileNames` that it sets."""
_FORMATS: Final = frozenset(Format)


def read_templates(configs: Sequence[YamlValue]) -> Templates:
    """Understand the elements of `configs`; of two for the same template the first one counts.

    Raises:
        ConfigError: An element is neither a name nor a mapping with one key, or an option is no
            text.
    """
    chosen: dict[str, YamlValue | None] = {}
    for config in configs:
        name, options = _name_and_options(config)
        chosen.setdefault(name, options)
    formats = tuple(Format(name) for name in chosen if name in _FORMATS)
    return formats, FileNames(**_names(chosen))


def _name_and_options(config: YamlValue) -> tuple[str, YamlValue | None]:
    if config.is_text():
        return config.text(), None
    names = config.names()
    if len(names) != 1:
        raise config.error(f"must have one key, the name of a template, not {len(names)}")
    return names[0], config.get(names[0])


def _names(chosen: Mapping[str, YamlValue | None]) -> dict[str, str]:
    """The fields of `FileNames` that options change; as in tbot, an empty one changes nothing."""
    found = {
        field: options.optional_text(key)
        for template, fields in _OPTIONS.items()
        if (options := chosen.get(template)) is not None
        for key, field in fields.items()
    }
    return {field: name for field, name in found.items() if name is not None}
