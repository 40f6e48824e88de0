"""The programs of docs/samples do what they say, in the modes in which clients use TLS."""

import subprocess
import sys
from pathlib import Path

import pytest
from running_proxy import PATIENCE, tls_modes
from stage import Stage

from dbproxy import Mode

SAMPLES = Path(__file__).resolve().parents[2] / "docs" / "samples"
PROGRAMS = sorted(SAMPLES.glob("*.py"))
LISTED = {
    "mongodb": {"example"},
    "mysql": {"example", "information_schema"},
    "postgres": {"example", "postgres", "secret", "template0", "template1"},
    "redis": {"db0 with 2 keys"},
}
"""What each lists, at least."""


@tls_modes
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_sample_connects_and_lists_the_databases(
    program: Path, mode: Mode, stage: Stage, tmp_path: Path
) -> None:
    protocol = program.stem.removesuffix("_databases")
    endpoint = stage.endpoint(protocol, mode)
    assert endpoint.certificate_file is not None
    placeholders = {
        'DESTINATION / "teleport-host-ca.crt"': f'Path("{endpoint.ca_file}")',
        "/opt/machine-id": str(endpoint.certificate_file.parent),
        "PORT = 12345": f"PORT = {endpoint.port}",
    }
    text = program.read_text(encoding="utf-8")
    for placeholder, value in placeholders.items():
        assert placeholder in text
        text = text.replace(placeholder, value)
    copy = tmp_path / program.name
    copy.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", copy],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines = done.stdout.splitlines()
    assert first.startswith("Successfully connected to ")
    assert LISTED[protocol] <= {line.removeprefix("Database: ") for line in lines}


def test_there_is_a_sample_for_each_of_these() -> None:
    names = {program.stem.removesuffix("_databases") for program in PROGRAMS}
    assert names == set(LISTED)


def test_the_guide_leads_to_every_sample() -> None:
    guide = (SAMPLES.parent / "guide.md").read_text(encoding="utf-8")
    assert all(f"(samples/{program.name})" in guide for program in PROGRAMS)
