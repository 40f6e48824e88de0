"""What Teleport says when it refuses a session, told apart by its words.

The texts come from the Teleport Proxy or from a database agent, and reach clients in the database's
own protocol, but with nothing else that a program could tell them apart by (reference of Teleport's
errors: `lib/services/access_checker.go`, `lib/srv/db/server.go`, `lib/srv/db/common/errors.go`,
`lib/limiter`). Versions differ in what they say around the words that are looked for here.
"""

from typing import Final

from dbproxy.errors import PROBLEMS, Code

__all__ = ["code_of", "hint_for", "known_code_of", "reason_for"]

_WORDS: Final = (
    (b"access to db denied", Code.ACCESS_DENIED),
    # "databases" or "database servers", "in" or "on" the cluster.
    (b"not found among registered database", Code.SERVICE_NOT_FOUND),
    (b"too many connections from", Code.CONNECTION_LIMIT),
    (b"cannot validate database's certificate", Code.DATABASE_UNTRUSTED),
    ("could not validate database’s certificate".encode(), Code.DATABASE_UNTRUSTED),  # noqa: RUF001
    (b"Database cannot validate client certificate", Code.DATABASE_UNTRUSTED),
    (b"x509: ", Code.DATABASE_UNTRUSTED),
)

_REASONS: Final = {
    Code.ACCESS_DENIED: "the roles of the bot do not allow this database user and name",
    Code.SERVICE_NOT_FOUND: "it knows no such database service",
    Code.CONNECTION_LIMIT: "there are too many connections from this address",
    Code.DATABASE_UNTRUSTED: "its database agent and the database do not trust each other",
}


def known_code_of(message: bytes) -> Code | None:
    """What a message of Teleport's means; None when its words are not known."""
    return next((code for words, code in _WORDS if words in message), None)


def code_of(message: bytes) -> Code:
    """The same, where it is known that the message is Teleport's."""
    return known_code_of(message) or Code.REFUSED_BY_TELEPORT


def hint_for(code: Code) -> str:
    """What is added to Teleport's message: the next step, and our name for the problem."""
    return f"{PROBLEMS[code].client_hint} [{code}]"


def reason_for(code: Code) -> str:
    """What our own records say: nothing of the message, which may hold what the client has sent."""
    why = _REASONS.get(code, "the client was told why")
    return f"Teleport refused the session: {why}"
