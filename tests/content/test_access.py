"""Who gets what: by name, by digest, by password; from upstream, from the store, and while upstream can't be asked."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator

import pytest
import trio

from p2pd.content.access import (
    CHECK_LIFETIME_S,
    REFUSAL_LIFETIME_S,
    REPOSITORY_LIFETIME_S,
)
from p2pd.mirror import Challenged, NotAvailable, Presented, Refused
from p2pd.oci import Kind
from p2pd.patterns import RepositoryPattern
from p2pd.upstream import RateLimited, Unreachable
from tests.content.conftest import Maker, World
from tests.content.fakes import HOST, Blob, Registry, blob, descriptor, manifest_of, until

PUBLIC, SECRET, OTHER = "team/public", "team/secret", "team/other"
PASSWORD = "s3cret"


def basic(password: str = PASSWORD) -> Presented:
    return Presented("Basic " + base64.b64encode(f"alice:{password}".encode()).decode())


def bearer(token: str = PASSWORD) -> Presented:
    return Presented(f"Bearer {token}")


LAYER, CONFIG = blob(300_000, 7), blob(2_000, 8)
IMAGE = manifest_of(CONFIG, LAYER)
OPEN_LAYER = blob(100_000, 9)
OPEN_IMAGE = manifest_of(OPEN_LAYER)


@pytest.fixture
def registry() -> Registry:
    """A private repository for alice, with an image; a public one with another; a second private one without."""
    registry = Registry(private={SECRET, OTHER}, lets_in={PASSWORD: {SECRET}, "other": {OTHER}})
    registry.serve(LAYER, CONFIG, IMAGE, OPEN_LAYER, OPEN_IMAGE)
    registry.tags["v1"] = descriptor(IMAGE, "application/vnd.oci.image.manifest.v1+json")
    registry.has = {
        SECRET: {one.digest for one in (LAYER, CONFIG, IMAGE)},
        PUBLIC: {one.digest for one in (OPEN_LAYER, OPEN_IMAGE)},
        OTHER: set(),
    }
    return registry


@pytest.fixture
async def world(make_world: Maker, registry: Registry) -> World:
    return make_world(registry)


async def get(world: World, kind: Kind, repository: str, one: Blob, presented: Presented | None = None) -> None:
    """One whole read."""
    library = world.library
    async with library.open(kind, HOST, repository, one.digest, patient=False, presented=presented) as reader:
        position = 0
        while position < reader.size:
            position = await reader.wait(position)
    assert position == one.size


async def read(world: World, kind: Kind, repository: str, one: Blob, presented: Presented | None = None) -> None:
    """One whole read; and what HEAD says is what GET gives."""
    head = await world.library.head(kind, HOST, repository, one.digest, presented=presented)
    assert head.size == one.size
    await get(world, kind, repository, one, presented)


async def refused(
    world: World, kind: Kind, repository: str, one: Blob, presented: Presented | None, error: type[NotAvailable]
) -> None:
    for ask in (world.library.head, world.library.open):
        with pytest.raises(NotAvailable) as caught:
            if ask == world.library.head:
                await world.library.head(kind, HOST, repository, one.digest, presented=presented)
            else:
                async with world.library.open(kind, HOST, repository, one.digest, patient=False, presented=presented):
                    pass
        assert type(caught.value) is error
        assert PASSWORD not in str(caught.value)


@contextlib.contextmanager
def out_of_reach(registry: Registry, error: Exception | None = None) -> Iterator[None]:
    registry.down = error or Unreachable("no route")  # type: ignore[assignment]
    try:
        yield
    finally:
        registry.down = None


# -- private -----------------------------------------------------------------------------------------------------------


async def test_a_client_is_asked_then_let_in(world: World, registry: Registry) -> None:
    with pytest.raises(Challenged) as caught:
        await world.library.resolve(HOST, SECRET, "v1")
    assert (caught.value.scheme, caught.value.code) == ("basic", "UNAUTHORIZED")
    found = await world.library.resolve(HOST, SECRET, "v1", presented=basic())
    assert found.digest == IMAGE.digest
    await read(world, "manifest", SECRET, IMAGE, basic())
    registry.heads.clear()
    for one in (CONFIG, LAYER):
        await get(world, "blob", SECRET, one, basic())
    assert registry.heads == []  # the manifest, which was checked, lists them
    # Nobody but the client could pull it: the node has no credentials of its own.
    assert {client.name for client in registry.opened_as if client} == {PASSWORD}
    assert None not in registry.opened_as


async def test_what_is_here_is_no_reason_to_serve_it(world: World, registry: Registry) -> None:
    await read(world, "manifest", SECRET, IMAGE, basic())
    await read(world, "blob", SECRET, LAYER, basic())
    await until(lambda: world.store.proven(LAYER.digest) == LAYER.size)
    for one, kind in ((IMAGE, "manifest"), (LAYER, "blob")):
        await refused(world, kind, SECRET, one, None, Challenged)  # type: ignore[arg-type]
        await refused(world, kind, SECRET, one, basic("wrong"), Refused)  # type: ignore[arg-type]
        await refused(world, kind, SECRET, one, bearer("wrong"), Challenged)  # type: ignore[arg-type]
        await refused(world, kind, SECRET, one, Presented("Negotiate x"), Challenged)  # type: ignore[arg-type]
        await refused(world, kind, OTHER, one, basic(), Refused)  # type: ignore[arg-type]
        await refused(world, kind, OTHER, one, basic("other"), NotAvailable)  # type: ignore[arg-type]
        await refused(world, kind, PUBLIC, one, None, NotAvailable)  # type: ignore[arg-type]
        await refused(world, kind, PUBLIC, one, basic(), NotAvailable)  # type: ignore[arg-type]


async def test_the_same_answer_for_what_is_here_and_what_is_not(world: World, registry: Registry) -> None:
    """No difference that tells a stranger what this node holds: in the answer, or in what is asked of upstream."""
    await read(world, "blob", SECRET, LAYER, basic())
    unknown = blob(300_000, 99)
    seen = []
    for one in (LAYER, unknown):
        registry.heads.clear()
        for repository in (PUBLIC, SECRET):
            for presented in (None, basic("wrong"), basic("other")):
                with pytest.raises(NotAvailable) as caught:
                    await world.library.head("blob", HOST, repository, one.digest, presented=presented)
                seen.append((type(caught.value), str(caught.value).replace(one.digest, "it"), len(registry.heads)))
    assert seen[:6] == seen[6:]


async def test_a_check_is_remembered_for_a_short_time(world: World, registry: Registry) -> None:
    await read(world, "blob", SECRET, LAYER, basic())
    await until(lambda: world.store.proven(LAYER.digest) == LAYER.size)
    registry.heads.clear()
    await get(world, "blob", SECRET, LAYER, basic())
    assert registry.heads == []
    registry.lets_in.clear()  # the password is withdrawn
    await read(world, "blob", SECRET, LAYER, basic())
    await trio.sleep(CHECK_LIFETIME_S)
    await refused(world, "blob", SECRET, LAYER, basic(), Refused)
    assert len(registry.heads) == 1  # and so is a refusal
    registry.lets_in[PASSWORD] = {SECRET}
    await trio.sleep(REFUSAL_LIFETIME_S)
    await read(world, "blob", SECRET, LAYER, basic())


async def test_a_list_lends_no_more_time_than_it_has(world: World, registry: Registry) -> None:
    await read(world, "manifest", SECRET, IMAGE, basic())
    await trio.sleep(CHECK_LIFETIME_S - 1)
    await read(world, "manifest", SECRET, IMAGE, basic())
    registry.heads.clear()
    await trio.sleep(1)
    await read(world, "blob", SECRET, LAYER, basic())
    assert registry.heads[0] == LAYER.digest


async def test_a_list_opens_nothing_that_is_had_elsewhere(world: World, registry: Registry) -> None:
    """Whoever can push to a repository could list any digest as a foreign layer, or one without its being there."""
    foreign = manifest_of(CONFIG, LAYER, layers=[
        {"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "digest": LAYER.digest,
         "size": LAYER.size, "urls": ["https://elsewhere.example/layer"]},
    ])  # fmt: skip
    registry.serve(foreign)
    registry.has[PUBLIC] |= {foreign.digest, CONFIG.digest}
    await read(world, "blob", SECRET, LAYER, basic())
    await read(world, "manifest", PUBLIC, foreign)
    await read(world, "blob", PUBLIC, CONFIG)
    await refused(world, "blob", PUBLIC, LAYER, None, NotAvailable)


async def test_lists_are_relayed_as_upstream_answers_each(world: World, registry: Registry) -> None:
    path = f"{SECRET}/tags/list"
    with pytest.raises(Challenged):
        await world.library.passthrough(HOST, path)
    with pytest.raises(Refused):
        await world.library.passthrough(HOST, path, presented=basic("wrong"))
    assert (await world.library.passthrough(HOST, path, presented=basic())).status == 200
    assert (await world.library.passthrough(HOST, f"{PUBLIC}/tags/list")).status == 200


async def test_upstream_out_of_reach_lets_nobody_in(world: World, registry: Registry) -> None:
    await read(world, "blob", SECRET, LAYER, basic())
    for error in (Unreachable("no route"), RateLimited("wait")):
        with out_of_reach(registry, error):
            await refused(world, "blob", SECRET, LAYER, basic("wrong"), NotAvailable)
            await refused(world, "blob", PUBLIC, LAYER, None, NotAvailable)
            await refused(world, "blob", SECRET, IMAGE, basic(), NotAvailable)
            await read(world, "blob", SECRET, LAYER, basic())  # until the check has run out
            await trio.sleep(REPOSITORY_LIFETIME_S)
            await refused(world, "blob", SECRET, LAYER, None, Refused)  # how to ask is not known either
            await refused(world, "blob", SECRET, LAYER, basic(), NotAvailable)
        await read(world, "blob", SECRET, LAYER, basic())


async def test_a_registry_that_can_t_check_a_client(make_world: Maker, registry: Registry) -> None:
    registry.has_certificate = True  # it would let in whoever comes from this node
    await refused(make_world(registry), "blob", PUBLIC, OPEN_LAYER, basic(), Refused)


async def test_nobody_is_asked_for_a_secret_that_another_host_would_see(world: World, registry: Registry) -> None:
    registry.asks_for = None
    await refused(world, "blob", SECRET, LAYER, None, Refused)


# -- what the operator says --------------------------------------------------------------------------------------------


async def test_a_listed_repository_is_asked_for(make_world: Maker, registry: Registry) -> None:
    """Also where upstream says "not there" to strangers."""
    registry.private = set()
    registry.has[SECRET] = set()
    world = make_world(registry, private=(RepositoryPattern.parse(f"{HOST}/team/secret"),))
    await refused(world, "blob", SECRET, LAYER, None, Challenged)
    await refused(world, "blob", SECRET, LAYER, basic(), NotAvailable)


async def test_a_listed_repository_that_upstream_shows_to_everybody(make_world: Maker, registry: Registry) -> None:
    """Its clients can't be told apart, so they are sent upstream."""
    world = make_world(registry, private=(RepositoryPattern.parse(f"{HOST}/team/*"),))
    for presented in (None, basic(), basic("wrong")):
        await refused(world, "blob", PUBLIC, OPEN_LAYER, presented, Refused)
    await read(world, "blob", SECRET, LAYER, basic())


async def test_share_private(make_world: Maker, registry: Registry) -> None:
    registry.has_credentials = True
    world = make_world(registry, share_private=True)
    assert (await world.library.resolve(HOST, SECRET, "v1")).digest == IMAGE.digest
    await read(world, "manifest", SECRET, IMAGE)
    await read(world, "blob", SECRET, LAYER)
    assert (await world.library.passthrough(HOST, f"{SECRET}/tags/list")).status == 200


async def test_the_operator_may_what_this_node_may(make_world: Maker, registry: Registry) -> None:
    registry.has_credentials = True
    world = make_world(registry)
    body, _ = await world.library.manifest(HOST, SECRET, IMAGE.digest)
    assert body == IMAGE.body
    await refused(world, "manifest", SECRET, IMAGE, None, Challenged)  # and that opens nothing to clients


async def test_this_node_s_credentials_are_for_clients_that_were_checked(make_world: Maker, registry: Registry) -> None:
    registry.has_credentials = True
    world = make_world(registry)
    await refused(world, "blob", SECRET, LAYER, None, Challenged)
    await refused(world, "blob", SECRET, LAYER, basic("wrong"), Refused)
    await read(world, "blob", SECRET, LAYER, basic())


# -- public ------------------------------------------------------------------------------------------------------------


async def test_a_public_image_costs_one_look(world: World, registry: Registry) -> None:
    registry.tags["v1"] = descriptor(OPEN_IMAGE)
    await world.library.resolve(HOST, PUBLIC, "v1")
    await get(world, "manifest", PUBLIC, OPEN_IMAGE)
    await get(world, "blob", PUBLIC, OPEN_LAYER)
    assert (registry.resolved, registry.heads) == ([f"{PUBLIC}:v1"], [])


async def test_what_was_public_stays_so_while_upstream_is_out_of_reach(world: World, registry: Registry) -> None:
    await read(world, "manifest", PUBLIC, OPEN_IMAGE)
    await read(world, "blob", PUBLIC, OPEN_LAYER)
    await trio.sleep(REPOSITORY_LIFETIME_S)
    with out_of_reach(registry):
        await read(world, "manifest", PUBLIC, OPEN_IMAGE)
        await read(world, "blob", PUBLIC, OPEN_LAYER)


async def test_a_repository_that_becomes_private(world: World, registry: Registry) -> None:
    await read(world, "blob", PUBLIC, OPEN_LAYER)
    registry.private.add(PUBLIC)
    await trio.sleep(REPOSITORY_LIFETIME_S)
    await refused(world, "blob", PUBLIC, OPEN_LAYER, None, Challenged)
    with out_of_reach(registry):
        await refused(world, "blob", PUBLIC, OPEN_LAYER, None, Refused)
    registry.private.clear()
    await trio.sleep(REPOSITORY_LIFETIME_S)
    await read(world, "blob", PUBLIC, OPEN_LAYER)


async def test_nothing_shows_what_was_presented(world: World, registry: Registry) -> None:
    registry.serve(LAYER, silent_at=1000)
    with trio.move_on_after(1):
        await get(world, "blob", SECRET, LAYER, bearer())
    arrival = world.arrivals.get(LAYER.digest)
    assert arrival and arrival.identity
    assert PASSWORD not in repr(bearer()) + str(bearer()) + repr(arrival)
