"""What a tag is: upstream's word, kept for a moment; while it can't be asked, another member's, signed and young."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from p2pd.content.tags import DIGEST_STATEMENT_LIFETIME_S, LIFETIME_S, STATEMENT_LIFETIME_S, Tags
from p2pd.fleet.keys import NodeKey, verify
from p2pd.swarm.messages import GetTag, TagIs
from p2pd.swarm.voucher import tag_bytes
from p2pd.upstream import Denied, RateLimited, Unreachable
from tests.content.fakes import HOST, REPOSITORY, Registry, Upstreams, blob, descriptor, manifest_of

IMAGE = manifest_of(blob(1000, 1), blob(2000, 2))
FOUND = descriptor(IMAGE, "application/vnd.oci.image.manifest.v1+json")


class Fleet:
    """Two members with a registry each: `other` is asked for its word by `here`. `bent` changes what it says."""

    def __init__(self) -> None:
        self.time = 1_000_000.0
        self.keys = NodeKey.generate(), NodeKey.generate()
        self.registries = Registry(), Registry()
        for registry in self.registries:
            registry.tags["v1"] = FOUND
            registry.sizes[IMAGE.digest] = IMAGE.size
        self.asked: list[GetTag] = []
        self.bent = lambda statement: statement
        self.here = self._tags(0, ask=self._ask)
        self.other = self._tags(1, answer=lambda peer, statement: self.here.heard(7, self.bent(statement)))

    def _tags(self, number: int, **wires: object) -> Tags:
        key = self.keys[number]
        return Tags(
            Upstreams(self.registries[number]),  # type: ignore[arg-type]
            key=key.public,
            sign=key.sign,
            verify=verify,
            key_of=lambda peer: self.keys[1].public,
            wall_clock=lambda: self.time,
            **wires,  # type: ignore[arg-type]
        )

    def _ask(self, message: GetTag) -> None:
        self.asked.append(message)
        self.other.heard(3, message)

    async def resolve(self, what: str = "v1") -> tuple[str, bool]:
        resolved = await self.here.resolve(HOST, REPOSITORY, what)
        return resolved.descriptor.digest, resolved.by_upstream


@pytest.fixture
async def fleet() -> Fleet:
    fleet = Fleet()
    await fleet.other.resolve(HOST, REPOSITORY, "v1")
    return fleet


async def test_upstream_s_word_is_remembered_for_a_moment(fleet: Fleet) -> None:
    for _ in range(3):
        assert await fleet.resolve() == (IMAGE.digest, True)
    assert len(fleet.registries[0].resolved) == 1
    await trio.sleep(LIFETIME_S)
    await fleet.resolve()
    assert len(fleet.registries[0].resolved) == 2
    assert fleet.asked == []


@pytest.mark.parametrize("error", [Unreachable("no route"), RateLimited("wait")])
@pytest.mark.parametrize(
    ("what", "lifetime"), [("v1", STATEMENT_LIFETIME_S), (IMAGE.digest, DIGEST_STATEMENT_LIFETIME_S)]
)
async def test_a_member_s_word_while_upstream_can_t_be_asked(
    fleet: Fleet, error: Exception, what: str, lifetime: float
) -> None:
    """Of the tag, and of the digest that it was: a public repository has it."""
    fleet.registries[0].down = error  # type: ignore[assignment]
    fleet.time += lifetime
    assert await fleet.resolve(what) == (IMAGE.digest, False)
    await trio.sleep(LIFETIME_S)
    fleet.time += 1
    with pytest.raises(type(error)):
        await fleet.resolve(what)


@pytest.mark.parametrize(
    "bent",
    [
        lambda statement: replace(statement, digest=bytes(32)),
        lambda statement: replace(statement, size=0),
        lambda statement: replace(statement, repository="team/other"),
        lambda statement: replace(statement, key=NodeKey.generate().public),
    ],
)
async def test_a_word_that_is_not_the_member_s_own(fleet: Fleet, bent: object) -> None:
    fleet.registries[0].down = Unreachable("no route")
    fleet.bent = bent  # type: ignore[assignment]
    with pytest.raises(Unreachable):
        await fleet.resolve()


async def test_a_signed_word_for_another_digest_than_the_one_asked_for(fleet: Fleet) -> None:
    other = manifest_of(blob(5, 5))
    fleet.registries[1].sizes[other.digest] = other.size
    fleet.registries[0].down = Unreachable("no route")
    said: list[TagIs] = []
    fleet.other._answer = lambda peer, statement: said.append(statement)
    with pytest.raises(Unreachable):
        await fleet.resolve(IMAGE.digest)
    (honest,) = said
    forged = replace(honest, digest=bytes.fromhex(other.digest[7:]))
    forged = replace(forged, signature=fleet.keys[1].sign(tag_bytes(forged)))
    fleet.other._answer = lambda peer, statement: fleet.here.heard(7, forged)
    with pytest.raises(Unreachable):
        await fleet.resolve(IMAGE.digest)


async def test_of_what_is_private_nothing_is_said(fleet: Fleet) -> None:
    """Also not what was said while it was public."""
    for registry in fleet.registries:
        registry.private = {REPOSITORY}
        registry.has_credentials = True
    await trio.sleep(LIFETIME_S)
    with pytest.raises(Denied):
        await fleet.other.resolve(HOST, REPOSITORY, "v1")
    fleet.registries[0].down = Unreachable("no route")
    with pytest.raises(Unreachable):
        await fleet.resolve()
