"""tbot.yaml as the lab's writer understands it, versions v1 and v2.

Keys and defaults follow Teleport's tool/tbot/config (v1) and lib/tbot/config (v2). Decoding is
strict, as upstream: an unknown key is an error. This parser is the lab's own, so that a mistake in
the product's parser shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from dbproxy.lab.yaml_reader import YamlReader, read_yaml

DEFAULT_CERTIFICATE_TTL = timedelta(minutes=60)
DEFAULT_RENEWAL_INTERVAL = timedelta(minutes=20)

FORMATS = ("tls", "mongo", "cockroach")
TEMPLATES = (*FORMATS, "ssh_client", "identity", "tls_cas", "kubernetes", "ssh_host_cert")

_COMMON_KEYS = frozenset(
    {
        "version",
        "onboarding",
        "storage",
        "debug",
        "fips",
        "insecure",
        "oneshot",
        "diag_addr",
        "auth_server",
        "certificate_ttl",
        "renewal_interval",
    }
)
_V1_KEYS = _COMMON_KEYS | {"destinations"}
_V2_KEYS = _COMMON_KEYS | {"proxy_server", "credential_ttl", "outputs", "services", "leeway"}
_ONBOARDING_KEYS = frozenset({"join_method", "token", "ca_pins", "ca_path"})
_V1_DESTINATION_KEYS = frozenset(
    {
        "directory",
        "roles",
        "database",
        "app",
        "kubernetes_cluster",
        "cluster",
        "kinds",
        "configs",
    }
)
_V1_DATABASE_KEYS = frozenset({"service", "username", "database"})
_DIRECTORY_KEYS = frozenset({"type", "path", "symlinks", "acls", "readers"})
_OUTPUT_KEYS = frozenset(
    {
        "type",
        "name",
        "destination",
        "roles",
        "credential_ttl",
        "certificate_ttl",
        "renewal_interval",
    }
)
_DATABASE_OUTPUT_KEYS = _OUTPUT_KEYS | {"format", "subtype", "service", "database", "username"}
_IDENTITY_OUTPUT_KEYS = _OUTPUT_KEYS | {"cluster", "ssh_config", "allow_reissue"}


@dataclass(frozen=True)
class FileNames:
    """Names that v1 templates let the user change, relative to the destination."""

    identity: str = "identity"
    tls_prefix: str = "tls"
    mongo_prefix: str = "mongo"
    cockroach_directory: str = "cockroach"
    host_ca: str = "teleport-host-ca.crt"
    user_ca: str = "teleport-user-ca.crt"
    database_ca: str = "teleport-database-ca.crt"


@dataclass(frozen=True)
class Output:
    """One destination directory and the certificate that belongs there.

    Attributes:
        directory: Where to write.
        service: Database service of the route; empty for a certificate without a route.
        db_user: Database user of the route, may be empty.
        db_name: Database name of the route, may be empty.
        roles: Roles to ask for; empty means all of the bot's.
        templates: Extra file formats (`tls`, `mongo`, `cockroach`) and, in v1, other templates, in
            the user's order.
        names: File names.
        certificate_ttl: Lifetime for this output; None for the file's.
        renewal_interval: Interval for this output; None for the file's.
    """

    directory: Path
    service: str = ""
    db_user: str = ""
    db_name: str = ""
    roles: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    names: FileNames = FileNames()
    certificate_ttl: timedelta | None = None
    renewal_interval: timedelta | None = None


@dataclass(frozen=True)
class TbotConfig:
    """What a tbot.yaml says, as far as the lab's writer needs it.

    Attributes:
        version: `v1` or `v2`.
        outputs: Database and identity outputs, in the file's order; other types are passed over.
        token: Join token, or the absolute path of a file that holds it.
        join_method: `token` or another method, which the lab cannot serve.
        ca_pins: Accepted pins of the Host CA.
        auth_server: Address of the auth service or Proxy, `host:port`, may be empty.
        proxy_server: Address of the Proxy, `host:port`, may be empty.
        certificate_ttl: Lifetime to ask for.
        renewal_interval: Time between renewals.
        oneshot: Whether to stop after the first renewal.
    """

    version: str
    outputs: tuple[Output, ...]
    token: str = field(default="", repr=False)
    join_method: str = "token"
    ca_pins: tuple[str, ...] = ()
    auth_server: str = ""
    proxy_server: str = ""
    certificate_ttl: timedelta = DEFAULT_CERTIFICATE_TTL
    renewal_interval: timedelta = DEFAULT_RENEWAL_INTERVAL
    oneshot: bool = False

    @property
    def shortest_interval(self) -> timedelta:
        """The shortest renewal interval of the file and its outputs."""
        own = [output.renewal_interval for output in self.outputs]
        return min([self.renewal_interval, *(interval for interval in own if interval)])


def load_tbot_config(text: str, source: str) -> TbotConfig:
    """Read a tbot.yaml.

    Args:
        text: Content of the file.
        source: Name of the file, for messages.

    Raises:
        TbotConfigError: The file is malformed; the text names file, line and key.
    """
    document = read_yaml(text, source)
    version = document.get("version").string("v1")
    if version not in {"v1", "v2"}:
        raise document.get("version").error(f'unrecognized config version "{version}"')
    document.check_keys(_V1_KEYS if version == "v1" else _V2_KEYS)
    outputs = _v1_outputs(document) if version == "v1" else _v2_outputs(document)
    onboarding = document.get("onboarding")
    onboarding.check_keys(_ONBOARDING_KEYS)
    return TbotConfig(
        version=version,
        outputs=outputs,
        token=onboarding.get("token").string(),
        join_method=onboarding.get("join_method").string("token"),
        ca_pins=onboarding.get("ca_pins").strings(),
        auth_server=document.get("auth_server").string(),
        proxy_server=_proxy_server(document),
        certificate_ttl=_ttl(document) or DEFAULT_CERTIFICATE_TTL,
        renewal_interval=document.get("renewal_interval").duration() or DEFAULT_RENEWAL_INTERVAL,
        oneshot=document.get("oneshot").boolean(),
    )


def _proxy_server(document: YamlReader) -> str:
    address = document.get("proxy_server").string()
    if address and document.get("auth_server").string():
        raise document.get("proxy_server").error("cannot be combined with auth_server")
    return address


def _ttl(section: YamlReader) -> timedelta | None:
    # `credential_ttl` was `certificate_ttl` before v17 or so.
    return section.get("credential_ttl").duration() or section.get("certificate_ttl").duration()


def _v1_outputs(document: YamlReader) -> tuple[Output, ...]:
    return tuple(_v1_output(item) for item in document.get("destinations").items())


def _v1_output(item: YamlReader) -> Output:
    item.check_keys(_V1_DESTINATION_KEYS)
    database = item.get("database")
    database.check_keys(_V1_DATABASE_KEYS)
    templates = [_template(config) for config in item.get("configs").items()]
    return Output(
        directory=_v1_directory(item.get("directory")),
        service="" if database.absent else database.get("service").required(),
        db_user=database.get("username").string(),
        db_name=database.get("database").string(),
        roles=item.get("roles").strings(),
        templates=tuple(name for name, _ in templates),
        names=_file_names(dict(templates)),
    )


def _v1_directory(value: YamlReader) -> Path:
    if value.is_scalar or value.absent:
        return Path(value.required())
    value.check_keys(_DIRECTORY_KEYS - {"type"})
    return Path(value.get("path").required())


def _template(config: YamlReader) -> tuple[str, YamlReader]:
    name, options = (config.string(), config) if config.is_scalar else config.single_entry()
    if name not in TEMPLATES:
        raise config.error(f"unknown template {name!r}; expected one of {', '.join(TEMPLATES)}")
    return name, options


def _file_names(options: dict[str, YamlReader]) -> FileNames:
    default = FileNames()

    def option(template: str, key: str, fallback: str) -> str:
        section = options.get(template)
        return (
            fallback if section is None or section.is_scalar else section.get(key).string(fallback)
        )

    return FileNames(
        identity=option("identity", "file_name", default.identity),
        tls_prefix=option("tls", "prefix", default.tls_prefix),
        mongo_prefix=option("mongo", "prefix", default.mongo_prefix),
        cockroach_directory=option("cockroach", "dir_name", default.cockroach_directory),
        host_ca=option("tls_cas", "host_ca_path", default.host_ca),
        user_ca=option("tls_cas", "user_ca_path", default.user_ca),
        database_ca=option("tls_cas", "database_ca_path", default.database_ca),
    )


def _v2_outputs(document: YamlReader) -> tuple[Output, ...]:
    items = [*document.get("services").items(), *document.get("outputs").items()]
    readers = {"database": _database_output, "identity": _identity_output}
    typed = [(item.get("type").required(), item) for item in items]
    return tuple(readers[kind](item) for kind, item in typed if kind in readers)


def _database_output(item: YamlReader) -> Output:
    item.check_keys(_DATABASE_OUTPUT_KEYS)
    return Output(
        directory=_v2_directory(item.get("destination")),
        service=item.get("service").required(),
        db_user=item.get("username").string(),
        db_name=item.get("database").string(),
        roles=item.get("roles").strings(),
        templates=_format(item),
        certificate_ttl=_ttl(item),
        renewal_interval=item.get("renewal_interval").duration(),
    )


def _identity_output(item: YamlReader) -> Output:
    item.check_keys(_IDENTITY_OUTPUT_KEYS)
    return Output(
        directory=_v2_directory(item.get("destination")),
        roles=item.get("roles").strings(),
        certificate_ttl=_ttl(item),
        renewal_interval=item.get("renewal_interval").duration(),
    )


def _format(item: YamlReader) -> tuple[str, ...]:
    # Early builds of v14 said `subtype`.
    value = item.get("subtype") if item.get("format").absent else item.get("format")
    if not (name := value.string()):
        return ()
    if name not in FORMATS:
        raise value.error(f"unknown format {name!r}; expected one of {', '.join(FORMATS)}")
    return (name,)


def _v2_directory(destination: YamlReader) -> Path:
    destination.check_keys(_DIRECTORY_KEYS)
    kind = destination.get("type").required()
    if kind != "directory":
        raise destination.get("type").error(f"the lab writes directories only, not {kind}")
    return Path(destination.get("path").required())
