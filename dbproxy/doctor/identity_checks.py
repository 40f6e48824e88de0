"""Checks of the identity: each a function from the evidence to a finding, without I/O.

What reading the identity has refused is told by the check whose business it is; the checks that
need what could not be read are skipped. So one cause is told once.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from dbproxy.doctor.evidence import Evidence
from dbproxy.doctor.files import FileFacts
from dbproxy.doctor.finding import Check, Finding, failed, failed_with, fine, skipped, warned
from dbproxy.errors import Code
from dbproxy.identity import DestinationEntry, Role
from dbproxy.identity.assemble import is_issued_by_one_of
from dbproxy.identity.duration import in_words
from dbproxy.identity.expiry import renewal_due

__all__ = ["IDENTITY_CHECKS"]

_PRESENCE: Final = frozenset({Code.IDENTITY_MISSING, Code.IDENTITY_UNREADABLE})
_PAIR: Final = frozenset({Code.KEY_MISMATCH, Code.IDENTITY_MIXED})
_ROUTE: Final = frozenset({Code.CERTIFICATE_WITHOUT_ROUTE})
_CLOCK_TOLERANCE: Final = timedelta(seconds=5)
"""File systems keep times roughly, and another machine's clock may differ a little."""


def _config(evidence: Evidence) -> Finding:
    if evidence.config_problem is not None:
        return failed_with(evidence.config_problem)
    if evidence.config is None:
        return fine("no tbot configuration is used; options say where the identity is")
    return fine(f"{evidence.config.path} is understood")


def _destination_unique(evidence: Evidence) -> Finding:
    if evidence.config is None:
        return skipped("no tbot configuration is known")
    shared = _shared_directories(evidence.config.entries)
    if not shared:
        return fine("each output in the tbot configuration has a directory of its own")
    text = "; ".join(
        f"{directory} is written by the outputs on the lines {', '.join(map(str, lines))}"
        for directory, lines in shared.items()
    )
    message = f"{evidence.config.path}: {text}"
    ours = evidence.location.directory if evidence.location is not None else None
    if ours is not None and _real(ours) in shared:
        return failed(Code.DESTINATION_USED_TWICE, message)
    return warned(Code.DESTINATION_USED_TWICE, message)


def _shared_directories(entries: Iterable[DestinationEntry]) -> dict[str, list[int]]:
    """The directories that more than one output writes to, with the outputs' lines."""
    lines: defaultdict[str, list[int]] = defaultdict(list)
    for entry in entries:
        if entry.directory is not None:
            lines[_real(entry.directory)].append(entry.line)
    return {directory: found for directory, found in lines.items() if len(found) > 1}


def _real(directory: Path) -> str:
    return os.path.realpath(directory)


def _files_readable(evidence: Evidence) -> Finding:
    if evidence.explanation is None:
        return skipped("it is not known where the identity is")
    locked = [facts for _, facts in evidence.files if facts is not None and not facts.readable]
    if locked:
        names = _listed(locked)
        return failed(Code.IDENTITY_UNREADABLE, f"{evidence.user} may not read {names}")
    problem = evidence.identity_problem
    if problem is not None and problem.code in _PRESENCE:
        return failed_with(problem)
    return fine(f"{evidence.user} may read each file ({evidence.explanation.layout})")


def _key_private(evidence: Evidence) -> Finding:
    if not evidence.secrets:
        return skipped("no file with a private key is within reach")
    exposed = [facts for facts in evidence.secrets if facts.exposed]
    if exposed:
        return failed(Code.IDENTITY_EXPOSED, f"every user of this host can read {_listed(exposed)}")
    return fine(f"not everybody on this host can read {_listed(evidence.secrets)}")


def _listed(files: Iterable[FileFacts]) -> str:
    return ", ".join(dict.fromkeys(str(facts.path) for facts in files))


def _files_whole(evidence: Evidence) -> Finding:
    """Tells of whatever no other check tells."""
    others = _PRESENCE | _PAIR | _ROUTE
    if evidence.identity_problem is not None and evidence.identity_problem.code not in others:
        return failed_with(evidence.identity_problem)
    return _about_reading(evidence, (), "every file is complete and holds what it should")


def _pair_matches(evidence: Evidence) -> Finding:
    return _about_reading(evidence, _PAIR, "the private key belongs to the certificate")


def _authorities_match(evidence: Evidence) -> Finding:
    """Reading tolerates it when the files have not been written to for a while."""
    identity = evidence.identity
    if identity is None:
        return skipped("the identity could not be read")
    if not identity.user_cas:
        return fine("there is no list of the User CA's certificates to compare with")
    if is_issued_by_one_of(identity.certificate, identity.user_cas):
        return fine("the certificate was issued by the User CA")
    return warned(
        Code.IDENTITY_MIXED,
        f"no certificate in {identity.files.user_ca} belongs to the issuer of"
        f" {identity.files.certificate}",
    )


def _about_reading(evidence: Evidence, codes: Collection[Code], message: str) -> Finding:
    """Fine when the identity was read; a failure when it was not because of one of `codes`."""
    if evidence.identity_problem is not None and evidence.identity_problem.code in codes:
        return failed_with(evidence.identity_problem)
    if evidence.identity_problem is not None and evidence.identity_problem.code in _ROUTE:
        return fine(message)  # the route is looked at last
    if evidence.identity is None:
        return skipped("the identity could not be read")
    return fine(message)


def _certificate_valid(evidence: Evidence) -> Finding:
    certificate = evidence.certificate
    if certificate is None:
        return skipped("the certificate could not be read")
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if evidence.now > end:
        return failed(
            Code.CERTIFICATE_EXPIRED,
            f"the certificate expired at {_utc(end)}, {in_words(evidence.now - end)} ago",
        )
    if evidence.now < begin:
        return failed(
            Code.CERTIFICATE_NOT_YET_VALID,
            f"the certificate is valid only from {_utc(begin)}, {in_words(begin - evidence.now)}"
            " from now",
        )
    return fine(f"valid until {_utc(end)}, {in_words(end - evidence.now)} from now")


def _tbot_alive(evidence: Evidence) -> Finding:
    certificate = evidence.certificate
    if certificate is None:
        return skipped("the certificate could not be read")
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if evidence.now > end:
        return skipped("the certificate has expired")
    interval = evidence.lifetime.renewal_interval
    habit = (
        f"tbot renews every {in_words(interval)}"
        if interval
        else "how often tbot renews is not known"
    )
    age = f"the certificate was written {_age(evidence)}; {habit}"
    due = renewal_due(begin, end, interval)
    if evidence.now > due:
        return warned(
            Code.IDENTITY_NOT_RENEWED,
            f"{age}; it should have been renewed by {_utc(due)},"
            f" {in_words(evidence.now - due)} ago",
        )
    return fine(age)


def _age(evidence: Evidence) -> str:
    written = _written(evidence)
    if written is None:
        return "at an unknown time"
    return f"{in_words(max(evidence.now - written, timedelta()))} ago"


def _written(evidence: Evidence) -> datetime | None:
    """When the certificate's file was written last."""
    times = [
        facts.modified
        for file, facts in evidence.files
        if facts is not None and file.role is Role.CERTIFICATE
    ]
    return times[0] if times else None


def _clock(evidence: Evidence) -> Finding:
    newest = max((facts.modified for _, facts in evidence.files if facts is not None), default=None)
    if newest is None:
        return skipped("there is no file whose time could be compared")
    if newest > evidence.now + _CLOCK_TOLERANCE:
        ahead = in_words(newest - evidence.now)
        return warned(Code.CLOCK_WRONG, f"a file of the identity was written {ahead} from now")
    written, certificate = _written(evidence), evidence.certificate
    if written is None or certificate is None:
        return fine("no file was written in the future")
    begin = certificate.not_valid_before_utc
    if written < begin - _CLOCK_TOLERANCE:
        return warned(
            Code.CLOCK_WRONG,
            f"the certificate was written {in_words(begin - written)} before it became valid:"
            " the clock was behind Teleport's then",
        )
    return fine("the times of the files and of the certificate agree with the clock")


def _service(evidence: Evidence) -> Finding:
    problem = evidence.identity_problem
    if problem is not None and problem.code in _ROUTE:
        return failed_with(problem)
    route = evidence.subject.route if evidence.subject is not None else None
    if route is None:
        return skipped("the certificate could not be read")
    if evidence.service is not None and evidence.service != route.service:
        return failed(
            Code.SERVICE_MISMATCH,
            f"the certificate is for the database service {route.service!r}, not for"
            f" {evidence.service!r}",
        )
    configured = _configured_service(evidence)
    if configured is not None and configured != route.service:
        return warned(
            Code.SERVICE_MISMATCH,
            f"the certificate is for the database service {route.service!r}, and the tbot"
            f" configuration has {configured!r} for this directory",
            next_step="If tbot.yaml was changed, restart tbot to have it take effect.",
        )
    return fine(f"the certificate is for the database service {route.service!r}")


def _configured_service(evidence: Evidence) -> str | None:
    entry = evidence.location.entry if evidence.location is not None else None
    return entry.service if entry is not None else None


def _protocol(evidence: Evidence) -> Finding:
    if evidence.protocol_problem is not None:
        return failed_with(evidence.protocol_problem)
    if evidence.protocol is None:
        return skipped("what the certificate leads to is not known")
    return fine(f"dbproxy carries {evidence.protocol.readable_name}")


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


IDENTITY_CHECKS: Final = (
    Check("config", "the tbot configuration can be used", _config),
    Check("destination-unique", "no directory is used twice", _destination_unique),
    Check("files-readable", "this user may read the files", _files_readable),
    Check("key-private", "not everybody may read the key", _key_private),
    Check("files-whole", "the files are whole", _files_whole),
    Check("pair-matches", "key and certificate belong together", _pair_matches),
    Check("authorities-match", "certificate and User CA belong together", _authorities_match),
    Check("service", "the certificate is for the service", _service),
    Check("protocol", "the protocol is carried", _protocol),
    Check("certificate-valid", "the certificate is valid now", _certificate_valid),
    Check("clock", "the clock is plausible", _clock),
    Check("tbot-alive", "tbot renews", _tbot_alive),
)
"""In an order in which the first failure is likely to be the cause of the others."""
