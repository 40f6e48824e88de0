"""Is everything as it should be? Checks that say so before a user finds out.

`gather` looks at everything there is to judge, once; `examine` makes the checks, which are small
functions without I/O; the report says what they found. `describe` is the other use of the evidence:
what was read and what it allows.
"""

from dbproxy.doctor.describe import (
    authorities,
    describe,
    describe_outcome,
    fingerprint,
    issuer,
    key_kind,
)
from dbproxy.doctor.evidence import Evidence, gather
from dbproxy.doctor.examination import (
    IDENTITY,
    UPSTREAM,
    Area,
    Outcome,
    Report,
    examine,
    outcomes_of,
)
from dbproxy.doctor.files import FileFacts, Reader
from dbproxy.doctor.finding import Check, Finding, Verdict
from dbproxy.doctor.upstream_evidence import UpstreamEvidence
from dbproxy.doctor.upstream_look import look_upstream
from dbproxy.doctor.words import route_in_words, subject_in_words

__all__ = [
    "IDENTITY",
    "UPSTREAM",
    "Area",
    "Check",
    "Evidence",
    "FileFacts",
    "Finding",
    "Outcome",
    "Reader",
    "Report",
    "UpstreamEvidence",
    "Verdict",
    "authorities",
    "describe",
    "describe_outcome",
    "examine",
    "fingerprint",
    "gather",
    "issuer",
    "key_kind",
    "look_upstream",
    "outcomes_of",
    "route_in_words",
    "subject_in_words",
]
