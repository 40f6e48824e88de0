"""The checks against what the lab's tbot writes, which shares no code with them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from dbproxy.doctor import Evidence, Verdict, examine, gather
from dbproxy.errors import Code
from dbproxy.lab import DatabaseResource, Lab, guide, open_lab
from dbproxy.lab.tbot import Layout
from dbproxy.settings import Settings

LAYOUTS: tuple[Layout, ...] = ("v9", "v12", "v14", "v18")


async def renew(lab: Lab, directory: Path, layout: Layout, key: RSAPrivateKey) -> Settings:
    """Let tbot write to `directory` once; what leads to it."""
    lab.create_role(guide.role_yaml())
    token = lab.add_bot(guide.BOT, roles=[guide.ROLE_NAME])
    config = directory.with_suffix(".yaml")
    config.write_text(guide.tbot_yaml(token, proxy=lab.address, destination=directory))
    await lab.tbot(config, layout=layout, generate_key=lambda: key).renew()
    return Settings(config=config, service=guide.SERVICE)


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_nothing_is_wrong_with_what_tbot_has_just_written(
    tmp_path: Path, layout: Layout, rsa_key: RSAPrivateKey
) -> None:
    database = DatabaseResource(guide.SERVICE, "127.0.0.1:1", labels={"env": "dev"})
    async with open_lab(databases=[database], directory=tmp_path / "lab") as lab:
        settings = await renew(lab, tmp_path / "machine-id", layout, rsa_key)
        evidence = await look(settings, timedelta())
        late = await look(settings, timedelta(minutes=59))
    report = examine(evidence)
    assert [outcome.finding.message for outcome in report.problems] == []
    assert {outcome.finding.verdict for outcome in report.outcomes} == {Verdict.OK}
    assert [problem.finding.code for problem in examine(late).problems] == [
        Code.IDENTITY_NOT_RENEWED
    ]


async def look(settings: Settings, later: timedelta) -> Evidence:
    return await trio.to_thread.run_sync(gather, settings, datetime.now(UTC) + later)
