"""What tbot wrote: reading it, checking it, and following its renewals."""

from dbproxy.identity.certificate import Subject, parse_subject
from dbproxy.identity.destination import read_destination, stamp
from dbproxy.identity.identity import Identity, IdentityFiles
from dbproxy.identity.pem import PrivateKey, load_certificates, load_private_key
from dbproxy.identity.route import Route
from dbproxy.identity.store import IdentityStore
from dbproxy.identity.watch import watch

__all__ = [
    "Identity",
    "IdentityFiles",
    "IdentityStore",
    "PrivateKey",
    "Route",
    "Subject",
    "load_certificates",
    "load_private_key",
    "parse_subject",
    "read_destination",
    "stamp",
    "watch",
]
