"""What the figures were measured on, and with which versions."""

import os
import platform
import re
import ssl
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import psutil
from OpenSSL import SSL

from comparison.programs import Programs
from comparison.rows import HAPROXY, NGINX, STUNNEL, program

VERSION_OPTIONS = {STUNNEL[0]: "-version", HAPROXY[0]: "-v", NGINX[0]: "-v"}
NUMBER = re.compile(r"\d+(?:\.\d+)+[\w.+-]*")


def describe_machine() -> dict[str, str]:
    """Processor, memory, kernel."""
    return {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / (1 << 30):.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
    }


def describe_versions(programs: Programs) -> dict[str, str]:
    """Of everything that takes part."""
    peers = {name: _version_of(name, option) for name, option in VERSION_OPTIONS.items()}
    return {
        "dbproxy": version("dbproxy"),
        "Python": python(),
        "trio": version("trio"),
        "pyOpenSSL": version("pyOpenSSL"),
        "OpenSSL of pyOpenSSL": SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode().split()[1],
        "OpenSSL of the system": ssl.OPENSSL_VERSION.split()[1],
        "Go": programs.go_version.removeprefix("go"),
        **{name: found for name, found in peers.items() if found},
    }


def python() -> str:
    """The version, and whether it is the system's own Python or one that somebody has built."""
    own = sys.base_prefix == "/usr"
    return f"{platform.python_version()} {'of the system' if own else 'not of the system'}"


def processor() -> str:
    """The processor's name as Linux knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version_of(name: str, option: str) -> str | None:
    try:
        asked = subprocess.run([program(name), option], capture_output=True, text=True, check=False)
    except OSError:
        return None
    found = NUMBER.search(asked.stdout + asked.stderr)
    return found.group() if found else None
