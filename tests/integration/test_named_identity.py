"""An identity from named files, instead of a destination: for dbproxy and for its clients."""

from pathlib import Path
from typing import Any

import pytest
from database_clients import Psql
from lab_client import until
from running_proxy import PATIENCE, Destination, every_mode, running_proxy

from dbproxy import Mode
from dbproxy.events import IdentityLoaded
from dbproxy.lab import Lab

COUNT = "SELECT count(*) FROM greetings"
NAMED: dict[str, dict[str, str]] = {
    "identity file": {"identity_file": "identity"},
    "one by one": {"cert": "tlscert", "key": "key", "ca": "teleport-host-ca.crt"},
}


@every_mode
@pytest.mark.parametrize("names", NAMED.values(), ids=NAMED)
async def test_psql_connects_with_the_files_that_were_named_and_after_a_renewal(
    mode: Mode,
    names: dict[str, str],
    lab: Lab,
    destination: Destination,
    psql: Psql,
    tmp_path: Path,
) -> None:
    files: dict[str, Any] = {name: destination.directory / file for name, file in names.items()}
    async with running_proxy(mode, lab, tmp_path, destination_dir=None, **files) as proxy:
        before = await psql.run(proxy, COUNT)
        await destination.renew()
        # A list of authorities is left alone for a moment, as nothing confirms that it is whole.
        await until(lambda: len(proxy.of(IdentityLoaded)) == 2, PATIENCE)
        after = await psql.run(proxy, COUNT)
    assert [(done.status, done.out, done.err) for done in (before, after)] == [(0, "3\n", "")] * 2
    assert [record.generation for record in proxy.records][-1] in (
        (2, None) if mode is Mode.PASSTHROUGH else (2,)
    )
