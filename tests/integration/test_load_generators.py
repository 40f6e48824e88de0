"""A few requests of each load generator through each mode: none fails, nothing is left open.

`bench/soak_clients` runs the same for longer, through the installed command.
"""

from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo
from soak.client_programs import LoadGenerator, Pgbench, load_generators
from stage import Stage

from dbproxy import Mode
from dbproxy.lab import guide
from dbproxy.lab.postgres import EmbeddedPostgres

NAMES = [generator.title for generator in load_generators(Path())]


@pytest.fixture(scope="module")
def generators(postgres: EmbeddedPostgres) -> dict[str, LoadGenerator]:
    pgbench = postgres.bin_directory / "pgbench"
    host = str(postgres.socket_directory)
    Pgbench(pgbench, reconnects=False).initialize(
        make_conninfo(host=host, user=guide.DATABASE_USER, dbname=guide.DATABASE)
    )
    return {generator.title: generator for generator in load_generators(pgbench)}


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("name", NAMES)
def test_a_load_generator_runs_clean(
    name: str, mode: Mode, generators: dict[str, LoadGenerator], stage: Stage
) -> None:
    generator = generators[name]
    outcome = generator.run(stage.endpoint(generator.protocol, mode), 0)
    assert outcome.requests > 0
    stage.until_nobody_is_connected()
