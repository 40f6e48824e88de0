"""The identity as text for people."""

import stat
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

from cryptography import x509

from dbproxy.cli.console import Answer
from dbproxy.doctor import (
    Evidence,
    FileFacts,
    Report,
    Verdict,
    authorities,
    fingerprint,
    issuer,
    key_kind,
    subject_in_words,
)
from dbproxy.identity import Role
from dbproxy.identity.duration import in_words

__all__ = ["Portrait"]

INDENT: Final = "  "
LABEL_WIDTH: Final = max(map(len, Role)) + 2
STYLES: Final = {Verdict.WARNING: "bold yellow", Verdict.FAILURE: "bold red"}


class Portrait:
    """Writes section by section what is known.

    Args:
        answer: Where to.
        evidence: What was found.
        report: What the checks say of it.
    """

    def __init__(self, answer: Answer, evidence: Evidence, report: Report) -> None:
        self._answer = answer
        self._evidence = evidence
        self._report = report

    def show(self) -> None:
        """Write everything."""
        self._show_files()
        self._show_certificate()
        self._show_authorities()
        self._show_problems()

    def _show_files(self) -> None:
        explanation = self._evidence.explanation
        if explanation is None:
            return
        self._answer.line(("Files", "bold"), f"  {explanation.layout}: {explanation.reason}")
        for path, group in groupby(self._evidence.files, lambda pair: pair[0].path):
            pairs = list(group)
            for file, _ in pairs:
                self._field(file.role, str(path))
            self._show_access(pairs[0][1])
        self._answer.line()

    def _show_access(self, facts: FileFacts | None) -> None:
        """What holds for a file in all its roles."""
        text = _access(facts, self._evidence.now) if facts is not None else "absent"
        self._answer.line(" " * (len(INDENT) + LABEL_WIDTH), (text, "dim"))

    def _show_certificate(self) -> None:
        certificate, subject = self._evidence.certificate, self._evidence.subject
        if certificate is None or subject is None:
            return
        self._answer.line(("Certificate", "bold"))
        self._fields(subject_in_words(subject))
        self._field("issued by", issuer(certificate))
        self._field("valid", _validity(certificate, self._evidence.now))
        self._field("key", key_kind(certificate))
        self._field("SHA-256", fingerprint(certificate))
        self._answer.line()

    def _show_authorities(self) -> None:
        found = authorities(self._evidence.identity)
        if not found:
            return
        self._answer.line(("Authorities", "bold"), "  (SHA-256)")
        for role, authority in found:
            self._field(role, fingerprint(authority))
        self._answer.line()

    def _show_problems(self) -> None:
        problems = self._report.problems
        self._answer.line(("Problems", "bold"), "" if problems else "  none")
        for outcome in problems:
            finding = outcome.finding
            style = STYLES[finding.verdict]
            self._answer.line(
                INDENT, (finding.verdict, style), f"  {finding.message} [{finding.code}]"
            )
            if finding.next_step is not None:
                self._answer.prose(finding.next_step, indent=INDENT * 2)

    def _fields(self, fields: Iterable[tuple[str, str]]) -> None:
        for label, text in fields:
            self._field(label, text)

    def _field(self, label: str, text: str) -> None:
        self._answer.line(INDENT, label.ljust(LABEL_WIDTH), text)


def _access(facts: FileFacts, now: datetime) -> str:
    """Who may read a file, and how old it is."""
    mode = stat.filemode(facts.mode)[1:]
    parts = [f"{mode} {facts.owner}:{facts.group}"]
    if facts.readers is not None:
        named = [f"{it.kind} {it.name} {it.permissions}" for it in facts.readers]
        parts.append(f"access list: {', '.join(named) or 'nobody else'}")
    parts.append(f"written {in_words(max(now - facts.modified, timedelta()))} ago")
    if not facts.readable:
        parts.append("not readable by this user")
    if facts.exposed:
        parts.append("readable by everybody")
    if facts.target is not None:
        parts.append(f"leads to {facts.target}")
    return ", ".join(parts)


def _validity(certificate: x509.Certificate, now: datetime) -> str:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end:
        remaining = f"expired {in_words(now - end)} ago"
    elif now < begin:
        remaining = f"begins {in_words(begin - now)} from now"
    else:
        remaining = f"{in_words(end - now)} left"
    return f"{_utc(begin)} to {_utc(end)}, {remaining}"


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
