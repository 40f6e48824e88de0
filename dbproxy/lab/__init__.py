"""The lab: a miniature Teleport cluster on loopback, for demos, tests and your own CI.

It is the other side of the wire and shares no code with the part of the package that speaks to it.

Example::

    async with open_lab(
        databases=[DatabaseResource("example-server", "127.0.0.1:5432", labels={"env": "dev"})],
        directory=Path("lab-state"),
    ) as lab:
        lab.create_role(Path("role.yaml").read_text())
        token = lab.add_bot("app", roles=["machine-id-db"])
"""

from dbproxy.lab.cluster import Lab, open_lab
from dbproxy.lab.database import DatabaseResource
from dbproxy.lab.rotation import Phase

__all__ = ["DatabaseResource", "Lab", "Phase", "open_lab"]
