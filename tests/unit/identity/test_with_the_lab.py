"""The identity against the lab's tbot, which shares no code with it.

The lab writes as tbot does: in place, one file after another, the certificate before its key, with
a new RSA key at each renewal. A pause between the files makes the torn states last.
"""

from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from dbproxy.identity import (
    DestinationSource,
    Identity,
    IdentityStore,
    Route,
    load_tbot_config,
    locate,
    read_destination,
)
from dbproxy.lab import DatabaseResource, Lab, guide, open_lab
from dbproxy.lab.tbot import Layout, Tbot

LAYOUTS: tuple[Layout, ...] = ("v9", "v12", "v14", "v18")
RENEWALS = 5


def make_tbot(lab: Lab, config: Path, layout: Layout, keys: list[RSAPrivateKey]) -> Tbot:
    """A tbot that takes turns between keys, since making them is slow."""

    def next_key() -> RSAPrivateKey:
        keys.append(keys.pop(0))
        return keys[0]

    return lab.tbot(config, layout=layout, gap=0.01, generate_key=next_key)


def write_config(lab: Lab, path: Path, destination: Path) -> None:
    lab.create_role(guide.role_yaml())
    token = lab.add_bot(guide.BOT, roles=[guide.ROLE_NAME])
    path.write_text(guide.tbot_yaml(token, proxy=lab.address, destination=destination))


@pytest.fixture(scope="module")
def other_rsa_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_every_renewal_of_tbot_is_followed_and_none_is_mixed_up(
    tmp_path: Path, layout: Layout, rsa_key: RSAPrivateKey, other_rsa_key: RSAPrivateKey
) -> None:
    database = DatabaseResource(guide.SERVICE, "127.0.0.1:1", labels={"env": "dev"})
    async with open_lab(databases=[database], directory=tmp_path / "lab") as lab:
        write_config(lab, tmp_path / "tbot.yaml", tmp_path / "machine-id")
        config = load_tbot_config(tmp_path / "tbot.yaml")
        directory = locate(destination_dir=None, config=config, service=guide.SERVICE).directory
        tbot = make_tbot(lab, tmp_path / "tbot.yaml", layout, [rsa_key, other_rsa_key])
        await tbot.renew()
        store = IdentityStore(DestinationSource(directory), service=guide.SERVICE)
        await store.load()
        seen = await renew_under_observation(tbot, store)
    for identity in seen:
        assert identity.private_key.public_key() == identity.certificate.public_key()
        identity.certificate.verify_directly_issued_by(identity.user_cas[0])
    assert store.current.certificate == read_destination(directory).certificate
    assert store.current.generation > RENEWALS
    check_route(store.current)


async def renew_under_observation(tbot: Tbot, store: IdentityStore) -> list[Identity]:
    """Renew several times while a reader looks constantly; returns what it saw."""
    seen: list[Identity] = []

    async def look_constantly() -> None:
        while True:
            seen.append(await store.fresh())
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look_constantly)
        for _ in range(RENEWALS):
            await tbot.renew()
            await store.settled()
        nursery.cancel_scope.cancel()
    return seen


def check_route(identity: Identity) -> None:
    assert identity.route == Route(guide.SERVICE, "postgres", guide.DATABASE_USER, guide.DATABASE)
    assert identity.subject.user == f"bot-{guide.BOT}"
    assert identity.subject.roles == (guide.ROLE_NAME,)
