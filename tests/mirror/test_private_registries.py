"""The mirror before real private registries: docker-registry behind a password file, and behind a token service."""

from __future__ import annotations

import base64
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio

from p2pd.admin.metrics import Metrics
from p2pd.content.access import Access
from p2pd.content.arrivals import Arrivals
from p2pd.content.catalogue import Catalogue
from p2pd.content.library import Library
from p2pd.content.pulling import Puller
from p2pd.content.readers import Patience
from p2pd.content.tags import Tags
from p2pd.engine import Engine
from p2pd.fleet.keys import NodeKey, verify
from p2pd.mirror import MirrorSettings, serve_mirror
from p2pd.store import Store
from p2pd.swarm import commands as cmd
from p2pd.swarm.messages import Contact
from p2pd.swarm.node import Node
from p2pd.swarm.voucher import node_id
from p2pd.upstream import UpstreamConfig, Upstreams
from p2pd.upstream.challenges import Challenge, parse_challenges
from tests.mirror.wire import Answer, Wire
from tests.upstream.conftest import Calls, RealRegistries, real
from tests.upstream.token_service import SERVICE

__all__ = ["real"]

ALICE = "s3cret, with a comma"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@dataclass
class Mirror:
    port: int
    calls: Calls

    async def ask(self, host: str, path: str, authorization: str | None = None, method: str = "GET") -> Answer:
        wire = Wire(await trio.open_tcp_stream("127.0.0.1", self.port))
        async with wire.stream:
            headers = f"Authorization: {authorization}\r\n" if authorization else ""
            await wire.ask(f"/v2/{path}?ns={urllib.parse.quote(host)}", method=method, headers=headers)
            return await wire.answer(to_head=method == "HEAD")


@pytest.fixture
async def mirror(real: RealRegistries, nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[Mirror]:
    """A node alone, without credentials."""
    calls = Calls()
    hosts = (real.basic, real.token)
    configs = {host: UpstreamConfig(host, url=f"http://{host}", proxy="") for host in hosts}
    upstreams = Upstreams(configs, on_request=calls)
    key = NodeKey.generate()
    me = Contact(node_id(key.public), "node", "", "", 0)
    # As if it had run for a while: a directory that is new grants nothing.
    engine = Engine(Node(me, key.public, key.sign, verify, Random(1), trio.current_time() - 60))
    store, metrics = Store.open(tmp_path / "blobs", 100_000_000), Metrics("test")
    arrivals = Arrivals(store, engine, metrics, nursery)
    puller = Puller(upstreams, arrivals, engine, metrics, nursery)
    arrivals.can_pull = puller.can_pull
    nobody = dict.fromkeys(cmd.Command.__args__, lambda command: None)  # type: ignore[attr-defined]
    engine.carry_out(nobody | arrivals.commands() | puller.commands())
    tags = Tags(upstreams)
    library = Library(
        store,
        upstreams,
        tags,
        arrivals,
        Catalogue(),
        engine,
        metrics,
        Patience(5.0, 20.0, True),
        Random(1),
        Access(upstreams, tags),
    )
    nursery.start_soon(engine.run)
    nursery.start_soon(arrivals.sweep)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    await nursery.start(partial(serve_mirror, listeners, library, MirrorSettings()))
    yield Mirror(listeners[0].socket.getsockname()[1], calls)
    await upstreams.aclose()
    nursery.cancel_scope.cancel()
    store.close()


async def test_a_password(real: RealRegistries, mirror: Mirror) -> None:
    ask = partial(mirror.ask, real.basic)
    asked = await ask("secret/image/manifests/v1", method="HEAD")
    assert asked.status == 401
    assert parse_challenges([asked.headers["www-authenticate"]]) == [Challenge("basic", {"realm": real.basic})]
    alice = basic("alice", ALICE)
    assert (await ask("secret/image/manifests/v1", alice, "HEAD")).status == 200
    assert (await ask(f"secret/image/manifests/{real.manifest_digest}", alice)).body == real.manifest
    mirror.calls.made.clear()
    assert (await ask(f"secret/image/blobs/{real.blob_digest}", alice)).body == real.blob
    # The manifest lists it: nothing is asked but for the pull, and for that of the config, which is begun beforehand.
    assert mirror.calls.made in ([("blob", 200)], [("blob", 200)] * 2)
    for wrong in (basic("alice", "wrong"), basic("bob", ALICE), basic("", ""), None):
        answer = await ask(f"secret/image/blobs/{real.blob_digest}", wrong)
        assert (answer.status, len(answer.body) < 1000) == (401 if wrong in (None, basic("", "")) else 404, True)


async def test_a_token(real: RealRegistries, mirror: Mirror) -> None:
    """The client gets it from the registry's own token service, with words that the mirror only repeats."""
    ask = partial(mirror.ask, real.token)
    asked = await ask("secret/image/manifests/v1", method="HEAD")
    (challenge,) = parse_challenges([asked.headers["www-authenticate"]])
    assert (challenge.scheme, challenge.parameters) == (
        "bearer",
        {"realm": real.service.realm, "service": SERVICE, "scope": "repository:secret/image:pull"},
    )
    real.service.asked.clear()
    token = real.service.sign([{"type": "repository", "name": "secret/image", "actions": ["pull"]}])
    assert (await ask("secret/image/manifests/v1", f"Bearer {token}", "HEAD")).status == 200
    assert (await ask(f"secret/image/blobs/{real.blob_digest}", f"Bearer {token}")).body == real.blob
    assert real.service.asked == []
    other = real.service.sign([{"type": "repository", "name": "public/image", "actions": ["pull"]}])
    for wrong in (other, "forged"):
        answer = await ask(f"secret/image/blobs/{real.blob_digest}", f"Bearer {wrong}")
        (challenge,) = parse_challenges([answer.headers["www-authenticate"]])
        assert (answer.status, challenge.parameters["error"]) == (401, "invalid_token")


async def test_a_password_at_a_registry_with_tokens(real: RealRegistries, mirror: Mirror) -> None:
    """Not what it was asked for, but it can be tried; the token service sees it once."""
    ask = partial(mirror.ask, real.token)
    real.service.asked.clear()
    for _ in range(2):
        for path in ("manifests/v1", f"blobs/{real.blob_digest}"):
            assert (await ask(f"secret/image/{path}", basic("alice", ALICE))).status == 200
    assert [asked.authorization for asked in real.service.asked].count(basic("alice", ALICE)) == 1
    assert (await ask("secret/image/manifests/v1", basic("alice", "wrong"))).status == 404


async def test_what_is_public(real: RealRegistries, mirror: Mirror) -> None:
    ask = partial(mirror.ask, real.token)
    real.service.asked.clear()
    assert (await ask("public/image/manifests/v1", basic("alice", ALICE))).body == real.manifest
    assert (await ask(f"public/image/blobs/{real.blob_digest}")).body == real.blob
    assert (await ask("public/image/tags/list")).status == 200
    assert {asked.authorization for asked in real.service.asked} == {None}
    # The same blob, which is here by now, under the name of a private repository.
    assert (await ask(f"secret/image/blobs/{real.blob_digest}")).status == 401
    assert (await ask("secret/image/tags/list")).status == 401
    assert (await ask("secret/image/tags/list", basic("alice", ALICE))).status == 200
