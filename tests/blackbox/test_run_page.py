"""Every command line of `docs/run.md` is run, in a lab."""

import re
import sys
from pathlib import Path

import pytest
import yaml
from beside_lab import BesideLab, run_program
from commands import COMMAND, clean_environment

from dbproxy.lab import Lab

PAGE = Path(__file__).resolve().parents[2] / "docs" / "run.md"
FOR = {"service": "example-server", "username": "alice", "database": "example"}
OUTPUT = {"type": "database", **FOR}
TUNNELS = [
    {"type": "database-tunnel", "name": name, "listen": f"tcp://127.0.0.1:{port}", **FOR}
    for name, port in (("reports", 25432), ("other-reports", 25433))
]
PRINTED = {
    "-- psql": "?column?",
    "-- python3": "",
    "-- sh": "1\n",
    "connect example-server -- --csv": "?column?\n1\n",
    "connect": "",
    "eval": "",
    "--format=dotenv example-server": "",
    "--format=json": '"uris"',
    "--driver=jdbc": "jdbc:postgresql://localhost:",
    "--format=dotenv reports": "PGPORT=25432\n",
    "env reports other-reports": "export OTHER_REPORTS_PGPORT=25433\n",
}
"""What a line prints, by what it contains; the first one that fits."""


def command_lines() -> list[str]:
    blocks = re.findall(
        r"^<!-- run -->\n```console\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


def test_no_command_line_is_left_out() -> None:
    assert re.findall(r"^\$ (.*)$", PAGE.read_text(), re.MULTILINE) == command_lines()
    assert len(command_lines()) >= len(PRINTED)


@pytest.mark.parametrize("line", command_lines())
async def test_a_command_line_does_what_the_page_says(line: str, lab: Lab, tmp_path: Path) -> None:
    beside = await BesideLab.make(lab, tmp_path)
    config_file = tmp_path / "tbot.yaml"
    output = OUTPUT | {"destination": {"type": "directory", "path": str(tmp_path / "machine-id")}}
    config = {"version": "v2", "proxy_server": lab.address, "services": [output, *TUNNELS]}
    config_file.write_text(yaml.safe_dump(config))
    async with beside.running("db", "example-server") as proxy:
        port = str(await proxy.port())
        script = line.replace("/etc/tbot.yaml", str(config_file)).replace("12345", port)
        environment = clean_environment(tmp_path, {"DBPROXY_PROXY_CA": str(lab.web_ca_file)})
        programs = (Path(COMMAND).parent, Path(sys.executable).parent)  # dbproxy's and python3's
        environment["PATH"] = ":".join([*map(str, programs), environment["PATH"]])
        outcome = await run_program("bash", "-c", f"cd {tmp_path} && {script}", env=environment)
    assert outcome.status == 0, outcome.err
    assert "error" not in outcome.err
    part, printed = next((part, printed) for part, printed in PRINTED.items() if part in line)
    assert printed in outcome.out, part
