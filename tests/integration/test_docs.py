"""What the documentation tells people to type and to copy works."""

import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from dbproxy.cli import dbproxy
from dbproxy.errors import Code
from dbproxy.lab import Lab
from dbproxy.lab.keys import new_ecdsa_key
from dbproxy.proxy import Started, open_database_proxy
from dbproxy.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
GUIDE = ROOT / "docs" / "guide.md"
LAB = ROOT / "docs" / "lab.md"

PATIENCE = 30.0


def sample(page: Path, name: str) -> str:
    """The code block behind the comment `<!-- sample: NAME -->`."""
    text = page.read_text(encoding="utf-8")
    found = re.search(
        rf"<!-- sample: {name} -->\n```\w+\n(.*?)^```$", text, re.DOTALL | re.MULTILINE
    )
    assert found, f"{page.name} has no sample {name}"
    return found[1]


def commands(page: Path) -> list[str]:
    """The `dbproxy` command lines of a page, each in one line."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(r"^\$ (dbproxy .*)$", text, re.MULTILINE)


@pytest.mark.parametrize(
    "command", [pytest.param(line, id=line[:60]) for page in PAGES for line in commands(page)]
)
def test_a_documented_command_line_is_accepted(command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    own = words[: words.index("--")] if "--" in words else words  # the rest is another command's
    result = CliRunner().invoke(dbproxy, [*own, "--help"])
    assert result.exit_code == 0, result.output


def test_the_guide_has_commands_to_check() -> None:
    assert len(commands(GUIDE)) >= 4


async def test_subscribers_of_the_guide_see_records_and_errors_have_a_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names: dict[str, Any] = {}
    exec(sample(GUIDE, "subscribe"), names)
    await names["serve"](Settings(destination_dir=Path("/nowhere"), proxy="127.0.0.1:1"))
    assert capsys.readouterr().out.startswith(f"{Code.IDENTITY_MISSING} ")


def test_the_guide_names_each_problem_once() -> None:
    named = re.findall(r"^\| `([a-z-]+)` \|", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(Code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(linked), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@asynccontextmanager
async def followed_guide(lab: Lab, directory: Path, version: str) -> AsyncIterator[Started]:
    """A proxy for the identity that the guide's own role and tbot.yaml lead to."""
    lab.create_role(sample(GUIDE, "role"))
    token = lab.tokens["app"]
    config = directory / "tbot.yaml"
    text = sample(GUIDE, f"tbot {version}")
    for placeholder, value in {
        "teleport.example.com:443": lab.address,
        "the token that tctl printed": token.token,
        "sha256:the CA pin that tctl printed": token.ca_pin,
        "/opt/machine-id": str(directory / "machine-id"),
        "/var/lib/teleport/bot": str(directory / "storage"),
    }.items():
        assert placeholder in text
        text = text.replace(placeholder, value)
    config.write_text(text)
    await lab.tbot(config, generate_key=new_ecdsa_key).renew()
    settings = Settings(config=config, proxy_ca=lab.web_ca_file, service="example-server")
    async with open_database_proxy(settings) as started:
        yield started


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_the_guide_leads_to_a_connection(
    lab: Lab, tmp_path: Path, version: str, driver: str
) -> None:
    async with followed_guide(lab, tmp_path, version) as started:
        program = sample(GUIDE, driver).replace("/opt/machine-id", str(tmp_path / "machine-id"))
        printed = await run(program.replace("12345", started.address.rpartition(":")[2]))
    assert printed == "connected to example as alice\n"


async def test_the_guide_shows_how_to_embed_the_proxy(lab: Lab, tmp_path: Path) -> None:
    async with followed_guide(lab, tmp_path, "v2"):
        program = sample(GUIDE, "embed").replace("/opt/machine-id", str(tmp_path / "machine-id"))
        printed = await run(program.replace("teleport.example.com:443", lab.address))
    assert re.match(r"listening on 127\.0\.0\.1:\d+\ntry: psql .*sslmode=disable", printed)


async def test_the_lab_page_has_a_program_that_runs() -> None:
    printed = await run(sample(LAB, "lab"))
    assert "teleport-host-ca.crt" in printed
    assert "tlscert" in printed


async def run(program: str) -> str:
    """Run a Python program and return what it prints."""
    finished = await trio.to_thread.run_sync(
        partial(
            subprocess.run,
            [sys.executable, "-W", "error", "-c", program],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    )
    assert finished.returncode == 0, finished.stderr
    return str(finished.stdout)
