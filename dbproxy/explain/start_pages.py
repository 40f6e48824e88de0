"""Pages about what the operator typed, wrote into files, or lets dbproxy listen on."""

from typing import Final

from dbproxy.errors import Code
from dbproxy.explain.page import Look, Page, Sees

__all__ = ["COMMAND_PAGES", "LISTENER_PAGES", "SETTINGS_PAGES"]

SETTINGS_PAGES: Final = {
    Code.USAGE: Page(
        story="""\
The message names the option or the argument. An option may have come from the environment: each
has a variable, `DBPROXY_` and its name in capitals, and the message then names the variable.

Options that exclude each other: `--tunnel` and `--terminate`; `--port` and `--listen`;
`--destination-dir`, `--identity` and `--cert`. Options that need each other: `--server-cert` and
`--server-key`; `--cert`, `--key` and `--ca`.""",
        sees=Sees.NO_PORT,
        looks=(
            Look("dbproxy db --help", "every option, with its default and its variable"),
            Look("env | grep DBPROXY_", "options that you did not type"),
        ),
        related=(Code.CONFIG_UNREADABLE, Code.DESTINATION_NOT_FOUND),
    ),
    Code.CONFIG_MALFORMED: Page(
        story="""\
The message begins with the file, the line, the column and the path of the key, as in
`/etc/tbot.yaml:12:5: outputs[0].destination.path: is missing`. dbproxy reads the keys that it
needs and passes over all others, so this is about a key that says where the certificates are or
whom they are for: a list where a mapping belongs, a duration without a unit (`20` in place of
`20m`), a key that appears twice, or a file that is not YAML.

To go on at once, leave the file out: `--destination-dir` and `--proxy` say the same.""",
        sees=Sees.NO_PORT,
        looks=(Look("dbproxy -c /etc/tbot.yaml doctor", "the mistake, without starting anything"),),
        related=(Code.CONFIG_UNREADABLE, Code.DESTINATION_NOT_FOUND),
    ),
    Code.CONFIG_UNREADABLE: Page(
        story="""\
The file was named with `--config`, `DBPROXY_CONFIG` or `TBOT_CONFIG_PATH`, or is `/etc/tbot.yaml`,
which dbproxy reads without being told when it exists. It holds tbot's join token, so it is often
readable by tbot's user alone. dbproxy does not need it: with `--destination-dir` and `--proxy`
nothing is left to look up in it.""",
        sees=Sees.NO_PORT,
        looks=(Look("ls -l /etc/tbot.yaml", "its owner and mode, as opposed to who you are"),),
        related=(Code.CONFIG_MALFORMED, Code.DESTINATION_NOT_FOUND),
    ),
    Code.DESTINATION_NOT_FOUND: Page(
        story="""\
dbproxy looks for the output in tbot.yaml whose `service` is the service that you asked for. The
message lists the outputs that it found, with their lines. When none fits, the name is misspelt or
the output is missing. When several fit, `--db-user` and `--db-name` choose between outputs of one
service. Outputs that go to `memory` or to a Kubernetes secret have no directory to read; in a pod
that mounts the secret, name the mount with `--destination-dir`.""",
        sees=Sees.NO_PORT,
        looks=(
            Look("grep -n 'service:' /etc/tbot.yaml", "the services that tbot knows"),
            Look(
                "dbproxy --destination-dir=/opt/machine-id identity",
                "which service the certificate in a directory is for",
            ),
        ),
        related=(Code.CONFIG_MALFORMED, Code.SERVICE_MISMATCH, Code.CERTIFICATE_WITHOUT_ROUTE),
    ),
    Code.DESTINATION_USED_TWICE: Page(
        story="""\
Two outputs in tbot.yaml name one directory. tbot complains in its log and then writes both into it,
one after the other, at every renewal: the certificate there is now for the one and now for the
other, and its key may belong to neither. dbproxy then meets a service that changes, or a pair that
does not match, at moments that look random. Paths that differ only in spelling (a slash at the end,
`..`) are the same directory; so are two paths of which one is a symbolic link to the other.""",
        sees=Sees.NOTHING,
        looks=(
            Look("grep -nE 'path:|directory:' /etc/tbot.yaml", "the path that appears twice"),
            Look("dbproxy -c /etc/tbot.yaml doctor", "the lines of both outputs"),
        ),
        related=(Code.KEY_MISMATCH, Code.SERVICE_MISMATCH),
    ),
    Code.FILE_UNUSABLE: Page(
        story="""\
The file was named with an option, such as `--proxy-ca`, `--server-cert` or `--server-key`; the
message says which file, and what is wrong with it. A file in DER form (binary) has to be converted
to PEM first. A key has to belong to the certificate that it was named with, and must not be
encrypted.""",
        sees=Sees.NO_PORT,
        looks=(
            Look("openssl x509 -noout -subject -dates -in FILE", "whether it is a certificate"),
            Look("openssl x509 -inform der -in FILE -out FILE.pem", "(converts DER to PEM)"),
        ),
        related=(Code.IDENTITY_MALFORMED, Code.STATE_DIRECTORY_UNUSABLE),
    ),
}

LISTENER_PAGES: Final = {
    Code.ADDRESS_IN_USE: Page(
        story="""\
Often it is an earlier dbproxy or `tsh proxy db` that still runs, or the database itself when both
use 5432. After a restart the port is free at once: dbproxy does not have to wait for old
connections to time out. A Unix socket whose owner has died is replaced without a question; one on
which somebody answers is not.""",
        sees=Sees.NO_PORT,
        looks=(Look("ss -ltnp 'sport = :12345'", "the process that listens there"),),
        related=(Code.LISTEN_DENIED, Code.LISTEN_FAILED),
    ),
    Code.LISTEN_DENIED: Page(
        story="""\
Ports below 1024 are for root, unless the process has CAP_NET_BIND_SERVICE or the system's
`net.ipv4.ip_unprivileged_port_start` says otherwise. For a Unix socket the directory must be
writable by the user that runs dbproxy. Sandboxes (systemd's `ProtectSystem`, SELinux, a container's
read-only file system) deny the same.""",
        sees=Sees.NO_PORT,
        looks=(
            Look("sysctl net.ipv4.ip_unprivileged_port_start", "the lowest port for everybody"),
            Look("ls -ld DIRECTORY", "who may make a socket in it"),
        ),
        related=(Code.ADDRESS_IN_USE, Code.LISTEN_FAILED),
    ),
    Code.LISTEN_FAILED: Page(
        story="""\
The system said no for another reason than the usual two; the message has its words. The address may
belong to no interface of this host, the path of a Unix socket may be longer than the about 100
bytes that the system takes, or its directory may not exist.""",
        sees=Sees.NO_PORT,
        looks=(Look("ip address", "the addresses of this host"),),
        related=(Code.ADDRESS_IN_USE, Code.LISTEN_DENIED),
    ),
    Code.STATE_DIRECTORY_UNUSABLE: Page(
        story="""\
Only `--terminate` needs the directory: there the client's TLS ends at dbproxy, which makes a small
authority of its own, once, and keeps it in `$STATE_DIRECTORY` (as systemd sets it) or in
`~/.local/state/dbproxy`. A service user may have no home directory. With `--server-cert` and
`--server-key` no authority is made at all.""",
        sees=Sees.NO_PORT,
        looks=(
            Look(
                "STATE_DIRECTORY=/var/lib/dbproxy dbproxy db --terminate",
                "whether another directory does (in a systemd unit: StateDirectory=dbproxy)",
            ),
        ),
        related=(Code.FILE_UNUSABLE, Code.CLIENT_TLS_FAILED),
    ),
    Code.TOO_MANY_FILES: Page(
        story="""\
The message has the system's words: `too many open files` is the limit of this process,
`too many open files in system` that of the host. At the listener new clients wait in the queue, the
log says `accept-failed` once a minute, and they are served as soon as other connections end. On the
way to the Teleport Proxy the client gets the error below at once. Open connections go on.

The usual limit of 1024 is enough for about 500 connections. When that is more than you expect, look
for a client that opens connections and does not close them.""",
        sees=Sees.MESSAGE_BEFORE_TLS,
        looks=(
            Look('grep "open files" /proc/$(pgrep -o dbproxy)/limits', "the limit of the process"),
            Look("ls /proc/$(pgrep -o dbproxy)/fd | wc -l", "how many descriptors it has open"),
            Look("cat /proc/sys/fs/file-nr", "how many the host has open, and its limit"),
        ),
        related=(Code.UPSTREAM_UNREACHABLE,),
    ),
}

COMMAND_PAGES: Final = {
    Code.COMMAND_NOT_FOUND: Page(
        story="""\
With `dbproxy run` it is the first word after `--`. It is looked for as a shell does, but no shell
is asked: aliases, functions and words such as `cd` are no programs; for those, run `sh -c '…'`. A
script whose first line names an interpreter that does not exist counts as not found, too. With
`dbproxy connect` it is the usual client of the database's protocol.

The exit status is the one that shells report for a command that they do not find.""",
        sees=Sees.NO_CLIENT,
        looks=(Look("command -v psql", "the path of the program, when there is one"),),
        related=(Code.COMMAND_UNUSABLE,),
    ),
    Code.COMMAND_UNUSABLE: Page(
        story="""\
The file is there, but the system does not execute it; the message has its words.
`Permission denied`: it is not executable for this user, or is a directory, or lies on a file system
mounted with `noexec`. `Exec format error`: it is a script without a first line such as `#!/bin/sh`,
or a program for another kind of machine. `Argument list too long`: its arguments and variables are.

The exit status is the one that shells report for a command that they cannot execute.""",
        sees=Sees.NO_CLIENT,
        looks=(Look("ls -l FILE", "an `x` for this user"), Look("file FILE", "what it is")),
        related=(Code.COMMAND_NOT_FOUND,),
    ),
}
