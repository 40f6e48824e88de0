"""Pages about what a client did at our listener, and about our own bugs."""

from typing import Final

from dbproxy.errors import Code
from dbproxy.explain.page import Look, Page, Sees

__all__ = ["CLIENT_PAGES", "OWN_PAGES"]

_HOW_TO_CONNECT: Final = Look(
    "dbproxy -c /etc/tbot.yaml db --format json",
    "`connect_command`, and the files that belong to it (the start message has the same)",
)

CLIENT_PAGES: Final = {
    Code.CLIENT_NOT_TLS: Page(
        story="""\
In passthrough mode and with `--terminate` only holders of the tbot key get in, and they show it in
TLS. This client began in plaintext: `sslmode=disable`, a driver whose default is no TLS, or
`sslmode=prefer` after a failed attempt with TLS, in which case the first attempt's error is the one
to look at.

Where clients cannot do TLS, start dbproxy with `--tunnel`; everybody on this host can then use the
port.""",
        sees=Sees.MESSAGE,
        looks=(_HOW_TO_CONNECT, Look("env | grep ^PGSSL", "settings that psql takes from there")),
        related=(Code.CLIENT_TLS_ON_TUNNEL, Code.CLIENT_CERTIFICATE_MISSING),
    ),
    Code.CLIENT_TLS_ON_TUNNEL: Page(
        story="""\
The client asked for TLS, was answered no, and went away: with `sslmode=require` or stronger psql
says `server does not support SSL, but SSL was required`. With `sslmode=prefer` a client goes on in
plaintext, and all is well. Or it began a TLS handshake without asking first
(`sslnegotiation=direct`, or a program for another protocol), which is answered by a TLS alert.""",
        sees=Sees.ALERT,
        looks=(_HOW_TO_CONNECT,),
        related=(Code.CLIENT_NOT_TLS, Code.CLIENT_PROTOCOL_ERROR),
    ),
    Code.CLIENT_TLS_FAILED: Page(
        story="""\
With `--terminate` the client's TLS ends here. The message names the client's alert: with
`unknown_ca` it does not trust the authority of dbproxy (it needs the `dbproxy-ca.crt` named in the
start message, not `teleport-host-ca.crt`); `bad_certificate` often means that it connects to
another name than `localhost`. No shared version or cipher: the client is too old for TLS 1.2.""",
        sees=Sees.ALERT,
        looks=(
            _HOW_TO_CONNECT,
            Look(
                "openssl s_client -starttls postgres -connect localhost:12345"
                " -CAfile ~/.local/state/dbproxy/dbproxy-ca.crt </dev/null",
                "`Verify return code: 0 (ok)`",
            ),
        ),
        related=(Code.CLIENT_CERTIFICATE_MISSING, Code.STATE_DIRECTORY_UNUSABLE),
    ),
    Code.CLIENT_CERTIFICATE_MISSING: Page(
        story="""\
The TLS handshake went well, but without a client certificate. psql looks for one in
`~/.postgresql/postgresql.crt` when it is not told; other drivers need the files given in a TLS
context of their own. libpq sends nothing at all, and says nothing, when the certificate file does
not exist.""",
        sees=Sees.MESSAGE,
        looks=(_HOW_TO_CONNECT, Look("ls -l /opt/machine-id/tlscert", "whether it is there")),
        related=(Code.CLIENT_CERTIFICATE_REJECTED, Code.CLIENT_NOT_TLS),
    ),
    Code.CLIENT_CERTIFICATE_REJECTED: Page(
        story="""\
With `--terminate` a client's certificate must be that of the destination (now or one renewal ago),
or come from the cluster's User CA, and be valid now. The message says which of it failed. A program
that loads its certificate once at start shows an expired one after an hour: build its TLS context
anew for each new connection or pool.""",
        sees=Sees.MESSAGE,
        looks=(
            _HOW_TO_CONNECT,
            Look("openssl x509 -noout -issuer -dates -in FILE", "issuer and validity"),
        ),
        related=(Code.CLIENT_CERTIFICATE_WRONG_SERVICE, Code.CLIENT_CERTIFICATE_MISSING),
    ),
    Code.CLIENT_CERTIFICATE_WRONG_SERVICE: Page(
        story="""\
The certificate is a good one of this cluster, but it leads to another database service, or to none.
This usually happens where one host has several destinations: the client uses the files of one and
the port of the other. Letting it in would give it a database that its certificate does not name.\
""",
        sees=Sees.MESSAGE,
        looks=(
            _HOW_TO_CONNECT,
            Look(
                "dbproxy --destination-dir=/opt/machine-id identity",
                "the service that a directory's certificate is for",
            ),
        ),
        related=(Code.CLIENT_CERTIFICATE_REJECTED, Code.SERVICE_MISMATCH),
    ),
    Code.CLIENT_PROTOCOL_ERROR: Page(
        story="""\
The message says what came: an HTTP request (a health check or a browser), an SSH greeting, the
client of another database, a packet that PostgreSQL does not allow in that place. The client is
told in the protocol that it speaks, where that is recognised. Bytes in plaintext behind a request
for TLS are refused as well: accepted, they would pass for protected ones (CVE-2021-23214).""",
        sees=Sees.MESSAGE,
        looks=(Look("ss -tnp 'dport = :12345'", "the programs that connect to the port"),),
        related=(Code.CLIENT_NOT_TLS, Code.CLIENT_STALLED),
    ),
    Code.CLIENT_STALLED: Page(
        story="""\
Somebody connected, and no complete first message came within `--prologue-timeout`. A health check
that opens a connection and keeps it, a client behind a debugger, or a network that loses packets
looks like this. So does a MySQL client on the port of another protocol: it waits to be greeted.
A connection that is closed without a byte is counted as a probe and is no problem.""",
        sees=Sees.MESSAGE,
        looks=(Look("ss -tnp 'dport = :12345'", "the programs that connect to the port"),),
        related=(Code.CLIENT_PROTOCOL_ERROR,),
    ),
}

OWN_PAGES: Final = {
    Code.WORKER_LOST: Page(
        story="""\
The message says how the process ended. `SIGKILL` is somebody's `kill -9`, or the kernel, which ends
a process when memory is short; a status is a bug, which the lines before it in the log describe.
The connections of that process break off without a record. New ones are taken by the other workers,
or wait in the queue of the port until the next worker is there, which takes about a second; when
workers go on ending, the pauses between attempts grow to ten seconds.

Before the first worker has started, there is nothing to go on with: dbproxy ends with this code. A
worker that finds a mistake of configuration when it replaces another one is tried again with that
mistake's own code, as long as others serve; when none does, dbproxy ends with it.""",
        sees=Sees.CLOSED,
        looks=(
            Look("dmesg | grep -i 'killed process'", "whether the kernel ended it for its memory"),
            Look("grep worker-failed LOG", "which worker, which process and how it ended"),
        ),
        related=(Code.INTERNAL_ERROR,),
    ),
    Code.INTERNAL_ERROR: Page(
        story="""\
Something happened that nobody has thought of. One connection that fails so does not touch the
others. With `--debug` the log has a traceback, which never holds a key or a client's bytes.""",
        sees=Sees.CLOSED,
        looks=(Look("dbproxy --debug -c /etc/tbot.yaml db", "the traceback, when it happens"),),
    ),
}
