"""Pages about the identity: what tbot wrote, or did not."""

from typing import Final

from dbproxy.errors import Code
from dbproxy.explain.page import Look, Page, Sees

__all__ = ["IDENTITY_PAGES"]

_IDENTITY: Final = "dbproxy -c /etc/tbot.yaml identity"
_DOCTOR: Final = "dbproxy -c /etc/tbot.yaml doctor"
_TBOT_LOG: Final = Look("journalctl -u tbot", "whether tbot renews, and why not")

IDENTITY_PAGES: Final = {
    Code.IDENTITY_MISSING: Page(
        story="""\
The message names what is missing: the directory, or one file in it. A missing directory means that
tbot has not run yet, writes somewhere else, or that a volume is not mounted. A missing file in a
directory that has others means that the directory is not one of a database output, or that tbot has
been stopped in the middle of its first write.

When dbproxy and tbot start side by side, as in a pod, dbproxy may be the quicker one. With
`--wait-for-identity=1m` it waits until tbot has written.""",
        sees=Sees.LAST_GOOD,
        looks=(
            Look("ls -la /opt/machine-id", "which files there are, and how old they are"),
            Look(_IDENTITY, "which directory dbproxy looks into, and why"),
            _TBOT_LOG,
        ),
        related=(Code.IDENTITY_UNREADABLE, Code.DESTINATION_NOT_FOUND),
    ),
    Code.IDENTITY_UNREADABLE: Page(
        story="""\
tbot makes files of mode 0600 and directories of mode 0700, so at first its own user alone can read
them. Two ways lead out: run dbproxy as tbot's user, or let tbot grant access by an ACL. Older
versions do that with `tbot init --reader-user`, newer ones with `readers` at the destination in
tbot.yaml. Every directory on the way has to let the user through as well (`x`).

`chmod` does not last: tbot sets modes and ACLs again at each renewal. Making the key readable for
everybody is no way at all.""",
        sees=Sees.LAST_GOOD,
        looks=(
            Look("namei -l /opt/machine-id/key", "the step of the path that stops you"),
            Look("getfacl /opt/machine-id/key", "who may read besides the owner"),
            Look(_DOCTOR, "the same for each file, as the user that types it"),
        ),
        related=(Code.IDENTITY_MISSING, Code.IDENTITY_EXPOSED),
    ),
    Code.IDENTITY_EXPOSED: Page(
        story="""\
The mode of the key, or of the file that holds it, gives `others` the right to read, and no
directory above it stops them. Any user and any service of this host can then copy the key and be
this bot in Teleport for as long as the certificate is valid.

Permissions of the group are another matter. Where access is granted by an ACL, `ls` shows the ACL's
mask in place of the group's rights: a mode of 0660 or 0640 is what tbot itself leaves behind.""",
        sees=Sees.NOTHING,
        looks=(
            Look("stat -c '%A %U:%G %n' /opt/machine-id/*", "an `r` in the third last place"),
            Look("chmod o-rwx /opt/machine-id /opt/machine-id/key", "(puts it right)"),
        ),
        related=(Code.IDENTITY_UNREADABLE,),
    ),
    Code.IDENTITY_MALFORMED: Page(
        story="""\
tbot writes in place: it empties a file and then fills it. dbproxy knows that and reads again for
about a second before it says this, so the damage has lasted. A full disk, a tbot that was killed in
the middle of a write, or a file that was copied there by hand is behind it. The message names the
file and says whether it is empty, truncated, no regular file, or holds something else than its name
says. dbproxy never quotes from the file, since it may hold a key.""",
        sees=Sees.LAST_GOOD,
        looks=(
            Look("df -h /opt/machine-id", "whether the disk is full"),
            Look("openssl x509 -noout -subject -dates -in /opt/machine-id/tlscert", "its state"),
            _TBOT_LOG,
        ),
        related=(Code.KEY_MISMATCH, Code.FILE_UNUSABLE),
    ),
    Code.KEY_MISMATCH: Page(
        story="""\
At each renewal tbot makes a new key, and writes the certificate before the key. In between, new and
old lie side by side. dbproxy reads again for about a second before it says this, so it has lasted:
tbot was interrupted between the two files, two tbots (or two outputs) write into one directory, or
one file was copied without the other. The `identity` file of the destination holds key and
certificate in one and may well be consistent.""",
        sees=Sees.LAST_GOOD,
        looks=(
            Look("ls -lt --full-time /opt/machine-id", "files of two renewals"),
            Look(_DOCTOR, "whether a directory is used twice"),
            _TBOT_LOG,
        ),
        related=(Code.IDENTITY_MALFORMED, Code.DESTINATION_USED_TWICE),
    ),
    Code.IDENTITY_MIXED: Page(
        story="""\
Each file is complete and good, and yet they do not belong together: some are of the last renewal,
others of the one before, or the directory changes while it is read. For the time of a write that is
how tbot leaves a directory, so dbproxy reads again until all agree; a contradiction that is still
there some seconds after the last write is passed over, as long as key and certificate match. It
stays when tbot was interrupted between two files, when files were copied one by one, or when
somebody else writes into the directory all the time.""",
        sees=Sees.LAST_GOOD,
        looks=(
            Look("ls -lt --full-time /opt/machine-id", "files of two renewals"),
            Look(_DOCTOR, "which files dbproxy uses, and whether a directory is used twice"),
            _TBOT_LOG,
        ),
        related=(Code.KEY_MISMATCH, Code.IDENTITY_MALFORMED, Code.DESTINATION_USED_TWICE),
    ),
    Code.CERTIFICATE_WITHOUT_ROUTE: Page(
        story="""\
Teleport writes the database service into the certificate's subject, and routes by it. A certificate
without one belongs to an output of another type (`identity`, `application`, `kubernetes`), or to a
version 1 destination without a `database` section. Teleport would refuse it at the first query;
dbproxy refuses it at start.""",
        sees=Sees.LAST_GOOD,
        looks=(
            Look(_IDENTITY, "what the certificate says it may do"),
            Look("grep -n -A8 'type: database' /etc/tbot.yaml", "the database outputs and paths"),
        ),
        related=(Code.SERVICE_MISMATCH, Code.DESTINATION_NOT_FOUND),
    ),
    Code.SERVICE_MISMATCH: Page(
        story="""\
The name compared is that of the Teleport database resource, letter by letter: not the database's
host, not the name of a database in it. Teleport routes by the certificate alone, so going on would
connect clients to the other database. While dbproxy runs, a destination whose certificate suddenly
names another service is refused as well, and the last good identity stays in use: somebody has
changed tbot.yaml, or two outputs share the directory.""",
        sees=Sees.LAST_GOOD,
        looks=(
            Look(_IDENTITY, "the service that the certificate is for"),
            Look("tsh db ls", "the names of the services, as Teleport knows them"),
        ),
        related=(
            Code.CERTIFICATE_WITHOUT_ROUTE,
            Code.DESTINATION_NOT_FOUND,
            Code.DESTINATION_USED_TWICE,
        ),
    ),
    Code.IDENTITY_NOT_RENEWED: Page(
        story="""\
The certificate is still valid, but tbot should have replaced it by now: its renewal interval (from
tbot.yaml, or else two thirds of the certificate's lifetime) has passed. Nothing fails yet. When
nothing happens until the certificate expires, new connections will be refused with
`certificate-expired`.

tbot is not running, cannot reach Teleport, has been locked or deleted as a bot, or is not allowed
to write its files any more. A tbot that has been stopped for longer than its own certificate lives
needs a new join token.""",
        sees=Sees.NOTHING,
        looks=(
            Look("systemctl status tbot", "whether it runs"),
            _TBOT_LOG,
            Look(_DOCTOR, "the age of the files against the renewal interval"),
        ),
        related=(Code.CERTIFICATE_EXPIRED, Code.CLOCK_WRONG),
    ),
    Code.CERTIFICATE_EXPIRED: Page(
        story="""\
Certificates of Machine ID live for an hour or so, and tbot renews them about every 20 minutes; an
expired one means that several renewals in a row did not happen. dbproxy stays up: it looks for a
new certificate before each connection and goes on as soon as there is one. Connections that were
open before go on as well, unless the cluster has `disconnect_expired_cert`.

In passthrough mode the client shows its own copy of the certificate, and Teleport says the same to
a client that has kept an old copy in memory.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look("systemctl status tbot", "whether it runs"),
            _TBOT_LOG,
            Look(_IDENTITY, "until when the certificate was valid, and since when"),
        ),
        related=(
            Code.IDENTITY_NOT_RENEWED,
            Code.CERTIFICATE_NOT_YET_VALID,
            Code.CERTIFICATE_REJECTED,
        ),
    ),
    Code.CERTIFICATE_NOT_YET_VALID: Page(
        story="""\
Teleport dates a certificate one minute back, so a clock has to be wrong by more than that. It is
this host's clock as a rule: a virtual machine that was suspended, a container host without NTP.
When Teleport's clock is ahead instead, every host has the problem at once.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look("timedatectl", "whether the clock is synchronised"),
            Look("curl -sI https://teleport.example.com | grep -i ^date", "Teleport's clock (UTC)"),
            Look("date -u", "this host's clock"),
        ),
        related=(Code.CLOCK_WRONG, Code.CERTIFICATE_EXPIRED),
    ),
    Code.CLOCK_WRONG: Page(
        story="""\
A file of the destination was written later than now, as far as this host's clock is concerned. So
the clock has been turned back since, or the files lie on another machine's disk and the two clocks
differ. Whether a certificate is valid, and whether tbot is late, cannot be told with a wrong clock.
A difference of a few seconds is passed over.""",
        sees=Sees.NOTHING,
        looks=(
            Look("timedatectl", "whether the clock is synchronised"),
            Look("ls -l --full-time /opt/machine-id", "when the files were written"),
        ),
        related=(Code.CERTIFICATE_NOT_YET_VALID, Code.CERTIFICATE_EXPIRED),
    ),
    Code.PROTOCOL_NOT_SUPPORTED: Page(
        story="""\
The protocol is Teleport's name for what the database speaks (`postgres`, `mysql`, `mongodb`, …); it
stands in the certificate. dbproxy has to know it to answer a client's first packets and to say no
in a way that the client understands. `--protocol` names another one than the certificate does, for
databases that speak a known protocol under a name of their own. With `--alpn` and the value that
Teleport knows a protocol by, one that dbproxy does not know is carried too, byte by byte; its
clients are not told what goes wrong.""",
        sees=Sees.NO_PORT,
        looks=(Look(_IDENTITY, "the protocol that the certificate names"),),
        related=(Code.SERVICE_MISMATCH,),
    ),
}
