"""Everything that the checks judge, gathered once.

Here is the only place of this package, beside `dbproxy.doctor.files`, that touches files.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from dbproxy.doctor.files import FileFacts, inspect_file, user_name
from dbproxy.errors import Code, ConfigError, IdentityError, UsageError
from dbproxy.identity import (
    Explanation,
    Identity,
    IdentitySource,
    Lifetime,
    Location,
    Role,
    Subject,
    TbotConfig,
    UsedFile,
    load_tbot_config,
    parse_subject,
    read_certificates,
)
from dbproxy.identity.choose_source import choose_source
from dbproxy.identity.layout import layouts
from dbproxy.protocols import DatabaseProtocol
from dbproxy.settings import Settings
from dbproxy.wiring import configured_protocol

__all__ = ["Evidence", "gather"]

_PATIENCE: Final = 1.0
"""Seconds for which a read that meets tbot in the middle of a write is repeated."""
_PAUSE: Final = 0.05
_TORN: Final = frozenset({Code.KEY_MISMATCH, Code.IDENTITY_MIXED, Code.IDENTITY_MALFORMED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What there is to judge.

    Attributes:
        now: The time, in UTC.
        user: Who we are.
        service: The database service that was asked for.
        config: The tbot configuration, if there is one and it can be used.
        config_problem: Why it cannot be used, or no destination be found in it.
        location: The destination, and what the configuration says of it; `None` for named files.
        lifetime: What the configuration says of the certificate's times.
        explanation: Which files the identity is read from, and why.
        files: These files, with what the file system says; `None` for one that is absent.
        secrets: Every file there that holds a private key, used or not.
        identity: What was read; its validity and its service have not been judged.
        identity_problem: Why nothing could be read.
        certificate: The client certificate, also when the rest is unusable.
        subject: What it says about its holder.
        protocol: The database protocol that is carried.
        protocol_problem: Why none is.
    """

    now: datetime
    user: str
    service: str | None
    config: TbotConfig | None = None
    config_problem: ConfigError | None = None
    location: Location | None = None
    lifetime: Lifetime = field(default_factory=Lifetime)
    explanation: Explanation | None = None
    files: tuple[tuple[UsedFile, FileFacts | None], ...] = ()
    secrets: tuple[FileFacts, ...] = ()
    identity: Identity | None = None
    identity_problem: IdentityError | None = None
    certificate: x509.Certificate | None = None
    subject: Subject | None = None
    protocol: DatabaseProtocol | None = None
    protocol_problem: IdentityError | UsageError | None = None


def gather(settings: Settings, now: datetime) -> Evidence:
    """Look at everything that `settings` lead to; takes about a second when a read is torn.

    Raises:
        UsageError: The settings do not say where the identity is.
    """
    evidence = Evidence(now=now, user=user_name(os.geteuid()), service=settings.service)
    evidence = _with_config(evidence, settings)
    if evidence.config_problem is not None and not settings.names_identity:
        return evidence
    try:
        chosen = choose_source(settings, evidence.config)
    except ConfigError as error:
        return replace(evidence, config_problem=error)
    evidence = replace(evidence, location=chosen.location, lifetime=chosen.lifetime)
    evidence = _with_identity(_with_files(evidence, chosen.source), chosen.source)
    return _with_protocol(_with_certificate(evidence), settings)


def _with_config(evidence: Evidence, settings: Settings) -> Evidence:
    if settings.config is None:
        return evidence
    try:
        return replace(evidence, config=load_tbot_config(settings.config))
    except ConfigError as error:
        return replace(evidence, config_problem=error)


def _with_files(evidence: Evidence, source: IdentitySource) -> Evidence:
    explanation = source.explain()
    files = tuple((file, inspect_file(file.path)) for file in explanation.files)
    secrets = (inspect_file(path) for path in _secret_paths(explanation, evidence.location))
    return replace(
        evidence,
        explanation=explanation,
        files=files,
        secrets=tuple(facts for facts in secrets if facts is not None),
    )


def _secret_paths(explanation: Explanation, location: Location | None) -> Iterator[Path]:
    """The key that is used, and those that the destination may hold besides; each once."""
    used = [file.path for file in explanation.files if file.role is Role.KEY]
    others = (
        [location.directory / layout.key for layout in layouts(location.formats, location.names)]
        if location is not None
        else []
    )
    yield from dict.fromkeys((*used, *others))


def _with_identity(evidence: Evidence, source: IdentitySource) -> Evidence:
    try:
        identity = _read_patiently(source)
    except IdentityError as error:
        return replace(evidence, identity_problem=error)
    return replace(
        evidence, identity=identity, certificate=identity.certificate, subject=identity.subject
    )


def _read_patiently(source: IdentitySource) -> Identity:
    """Read, again and again while tbot may be writing."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return source.read()
        except IdentityError as error:
            if error.code not in _TORN or time.monotonic() >= deadline:
                raise
        time.sleep(_PAUSE)


def _with_certificate(evidence: Evidence) -> Evidence:
    """The certificate alone, when the identity as a whole cannot be used."""
    if evidence.identity is not None:
        return evidence
    for file, _ in evidence.files:
        if file.role is Role.CERTIFICATE:
            try:
                certificate = read_certificates(file.path)[0]
                subject = parse_subject(certificate, file.path)
            except (ConfigError, IdentityError):  # told already: `identity_problem`
                return evidence
            return replace(evidence, certificate=certificate, subject=subject)
    return evidence


def _with_protocol(evidence: Evidence, settings: Settings) -> Evidence:
    route = evidence.subject.route if evidence.subject is not None else None
    if route is None:
        return evidence
    try:
        return replace(evidence, protocol=configured_protocol(settings, route.protocol))
    except (IdentityError, UsageError) as error:
        return replace(evidence, protocol_problem=error)
