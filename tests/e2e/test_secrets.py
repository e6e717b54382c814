"""Secrets are planted wherever p2pd may read one; then all that comes out of it is searched for them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

import pytest

from tests.e2e.leaks import DAEMON, Host, Tap, closing_all, forms, leaks
from tests.e2e.private import auth_parts
from tests.lab import Front, Node, Registry, Tracker, Warehouse
from tests.lab.images import Layer
from tests.lab.nodes import BIN
from tests.lab.process import Process, environment, free_port, wait_until
from tests.upstream import token_service
from tests.upstream.token_service import TokenService

pytestmark = pytest.mark.e2e

REPOSITORY = "secret/searched"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
# Each with letters that base64 and URLs write otherwise; long enough not to turn up by chance.
SECRETS = {
    name: f"{name}?/+&{random.Random(name).randbytes(9).hex()}=%~"
    for name in ("file", "helper", "complaint", "plugin", "fixed", "environment", "basic", "bearer", "identity")
} | {"client": "s3cret, with a comma"}  # whose hash the password file has


def basic(user: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


@dataclass
class Searched:
    """A node that knows all secrets but the clients', a peer, and whatever may hear something."""

    node: Node
    peer: Node
    taps: list[Tap]
    registry: Host  # asks for Basic, and sends on to `elsewhere`
    elsewhere: Host
    service: TokenService
    crash_when: Path
    said: dict[str, bytes] = field(default_factory=dict)  # what commands and requests were answered

    def ask(
        self, what: str, upstream: str, path: str, authorization: str | None = None, *, node: Node | None = None
    ) -> int:
        headers = {"Authorization": authorization} if authorization else {}
        answer = (node or self.node).mirror(f"/v2/{REPOSITORY}/{path}?ns={upstream}", headers=headers)
        self.said[what] = repr(answer.headers).encode() + answer.body[:10_000]
        return answer.status

    def command(self, *words: str) -> None:
        socket = self.node.directory / "p2pd.sock"
        command = [BIN / "p2pd", *words, "--control", str(socket)]
        done = subprocess.run(command, capture_output=True, timeout=60, env=environment())
        self.said["p2pd " + " ".join(words)] = done.stdout + done.stderr

    def outputs(self) -> dict[str, bytes]:
        found = dict(self.said)
        for node in (self.node, self.peer):
            found[f"{node.name}'s log"] = (node.directory / "p2pd.log").read_bytes()
            found |= {str(path): path.read_bytes() for path in node.state.rglob("*") if path.is_file()}
            if node.process.running:
                for path in ("/metrics", "/status", "/healthz", "/readyz"):
                    found[f"{node.name}{path}"] = node.admin(path).body
        found |= {f"wire {number}": bytes(tap.heard) for number, tap in enumerate(self.taps)}
        found["the host that a registry redirects to"] = bytes(self.elsewhere.heard)
        return found


@pytest.fixture
def searched(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Iterator[Searched]:
    directory = warehouse.lab_directory()
    warehouse.image(REPOSITORY, [Layer(1_000_000, 990)])
    monkeypatch.setitem(token_service.USERS, "filed", SECRETS["file"])
    monkeypatch.setattr(token_service, "REFRESH_TOKENS", {SECRETS["identity"]})
    with contextlib.ExitStack() as stack:
        service = TokenService()
        stack.callback(service.close)
        urls = {}
        for name, auth in zip(("password", "token"), auth_parts(directory, service), strict=True):
            registry = stack.enter_context(Registry(directory / name, warehouse.storage, auth=auth))
            front = stack.enter_context(Front(directory / f"{name}-front", registry.address))
            urls[f"{name}.test"] = front.url
        urls["identity.test"] = urls["token.test"]
        asking, elsewhere = Host(), Host("127.0.0.2")
        stack.enter_context(closing_all(asking, elsewhere))
        urls |= dict.fromkeys(("helped.test", "plugged.test"), f"http://{asking.address}")
        urls["fixed.test"] = f"http://127.0.0.1:{free_port()}"

        tracker = Tracker(directory, "tracker")
        stack.callback(tracker.stop)
        tracker.start()
        taps = [Tap(int(tracker.address.rpartition(":")[2]))]
        peer = Node(directory / "peer", "peer", upstreams=urls, trackers=[tracker.address])
        node = _node(directory, urls, f"127.0.0.1:{taps[0].port}")
        for one in (peer, node):
            tap = Tap(one.peers_port)
            taps.append(tap)
            text = one.config.read_text()
            own = f'advertise = "127.0.0.1:{one.peers_port}"'
            assert own in text
            one.config.write_text(text.replace(own, f'advertise = "127.0.0.1:{tap.port}"'))
        stack.enter_context(closing_all(*taps))
        for one in (peer, node):
            stack.callback(one.stop)
            one.start()
        yield Searched(node, peer, taps, asking, elsewhere, service, directory / "crash")


def _node(directory: Path, urls: dict[str, str], tracker: str) -> Node:
    bin = directory / "bin"
    bin.mkdir()
    programs = {
        "docker-credential-lab": f"""
            echo '{SECRETS["complaint"]}' >&2
            printf '{{"Username":"helped","Secret":"%s"}}' '{SECRETS["helper"]}'
            """,
        "docker-credential-failing": f"echo '{SECRETS['complaint']}'; echo '{SECRETS['complaint']}' >&2; exit 1",
        "cloud": f"""
            echo '{SECRETS["complaint"]}' >&2
            cat <<'END'
            {{"kind": "CredentialProviderResponse", "cacheKeyType": "Image", "cacheDuration": "1m",
              "auth": {{"plugged.test": {{"username": "plugged", "password": "{SECRETS["plugin"]}"}}}}}}
            END
            """,
    }
    for name, text in programs.items():
        (bin / name).write_text("#!/bin/sh\n" + dedent(text).strip() + "\n")
        (bin / name).chmod(0o755)
    (directory / "auth.json").write_text(
        json.dumps(
            {
                "auths": {
                    "token.test": {"auth": base64.b64encode(f"filed:{SECRETS['file']}".encode()).decode()},
                    "identity.test": {"identitytoken": SECRETS["identity"]},
                },
                "credHelpers": {"helped.test": "lab", "password.test": "failing"},
            }
        )
    )
    (directory / "node-password").write_text(SECRETS["fixed"])
    (directory / "node-password").chmod(0o600)
    provider = {
        "name": "cloud",
        "matchImages": ["plugged.test"],
        "defaultCacheDuration": "1m",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "env": [{"name": "SECRET", "value": SECRETS["environment"]}],
    }
    (directory / "providers.json").write_text(
        json.dumps(
            {
                "apiVersion": "kubelet.config.k8s.io/v1",
                "kind": "CredentialProviderConfig",
                "providers": [provider],
            }
        )
    )
    settings = {
        "credentials": {
            "files": [str(directory / "auth.json")],
            "kubelet_config": str(directory / "providers.json"),
            "kubelet_plugins": str(bin),
        },
        "mirror": {"header_wait": "3s"},
        'upstreams."fixed.test"': {"username": "fixed", "password_file": str(directory / "node-password")},
    }
    node = Node(directory / "node", "node", upstreams=urls, trackers=[tracker], settings=settings)
    variables = {
        "PATH": f"{bin}:{environment()['PATH']}",
        "CRASH_WHEN": str(directory / "crash"),
        "SOME_SECRET": SECRETS["environment"],
    }
    command = [sys.executable, "-c", DAEMON, "run", "--config", node.config]
    node.process = Process("node", command, node.directory / "p2pd.log", env=variables)
    return node


def test_the_search_finds_what_is_there() -> None:
    for name, secret in SECRETS.items():
        for form, text in forms(secret).items():
            assert len(text) >= 12, (name, form)
        for planted in (secret, basic("alice", secret), basic("a", secret), basic("", secret)):
            assert leaks({name: secret}, {"log": b"..." + planted.encode() + b"..."}), (name, planted)


def test_no_secret_comes_out(warehouse: Warehouse, searched: Searched) -> None:
    image = warehouse.image(REPOSITORY, [])
    layer = f"blobs/{image.biggest.digest}"
    client = basic("alice", SECRETS["client"])
    body = b"from elsewhere"
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    ask = {"WWW-Authenticate": 'Basic realm="r"'}

    # Success: with a client's password, with the node's own from a file, from a helper and over a redirect.
    assert searched.ask("asked", "password.test", "manifests/latest") == 401
    assert searched.ask("basic", "password.test", "manifests/latest", client) == 200
    assert searched.ask("layer", "password.test", layer, client) == 200
    assert searched.ask("the peer", "password.test", layer, client, node=searched.peer) == 200
    assert searched.peer.metrics().received("peer") >= image.biggest.size
    for upstream in ("token.test", "identity.test"):
        searched.command("pull", f"{upstream}/{REPOSITORY}:latest")
    # The signature is what makes a token one.
    tokens = {f"token {number}": token.rpartition(".")[2] for number, token in enumerate(searched.service.issued)}
    assert tokens
    searched.registry.answers[digest] = (302, {"Location": f"http://{searched.elsewhere.address}/there"}, b"")
    searched.elsewhere.answers["/there"] = (200, {"Docker-Content-Digest": digest}, body)
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": {"mediaType": "x/y", "digest": digest,
                           "size": len(body)}, "layers": []}).encode()  # fmt: skip
    described = {"Content-Type": MANIFEST, "Docker-Content-Digest": "sha256:" + hashlib.sha256(manifest).hexdigest()}
    searched.registry.answers["manifests/latest"] = (200, described, manifest)
    searched.registry.answers[described["Docker-Content-Digest"]] = (200, described, manifest)
    searched.registry.answers[digest] = (302, {"Location": f"http://{searched.elsewhere.address}/there"}, b"")
    searched.command("pull", f"helped.test/{REPOSITORY}:latest")

    # Refusals, and registries that fail.
    searched.ask("wrong", "password.test", layer, basic("alice", SECRETS["basic"]))
    searched.ask("forged", "token.test", layer, f"Bearer {SECRETS['bearer'].replace('?', '-')}")
    searched.ask("unreadable", "password.test", layer, "Basic " + SECRETS["basic"])
    searched.registry.answers = {"": (401, ask, b"{}")}
    for upstream in ("helped.test", "plugged.test", "fixed.test"):
        searched.ask(f"{upstream} refuses", upstream, "manifests/latest", client)
        searched.command("pull", f"{upstream}/{REPOSITORY}:v2")
    searched.registry.answers = {"": (500, {}, b"{}")}
    searched.command("pull", f"plugged.test/{REPOSITORY}:v3")
    for words in (["status"], ["status", "--json"]):
        searched.command(*words)

    secrets = SECRETS | tokens
    # Each had its chance: what should hear it did.
    for name in ("helper", "plugin"):
        whom = {"helper": "helped", "plugin": "plugged"}[name]
        assert basic(whom, SECRETS[name]).encode() in searched.registry.heard, name
    assert SECRETS["file"] in {
        base64.b64decode((asked.authorization or "Basic ")[6:]).decode().partition(":")[2]
        for asked in searched.service.asked
    }
    assert SECRETS["identity"] in {
        one for asked in searched.service.asked for one in asked.form.get("refresh_token", [])
    }
    assert b"GET /there" in searched.elsewhere.heard
    assert len(searched.taps[0].heard) > 200
    assert max(len(tap.heard) for tap in searched.taps) > image.biggest.size
    assert leaks(secrets, searched.outputs()) == []

    # A crash in the middle of it, with all that it prints.
    searched.crash_when.touch()
    with contextlib.suppress(OSError):
        searched.ask("crash", "password.test", "manifests/latest", basic("alice", SECRETS["basic"]))
    wait_until(lambda: not searched.node.process.running, "the crash")
    outputs = searched.outputs()
    assert b"RuntimeError: a bug" in outputs["node's log"]
    assert b"DEBUG" in outputs["node's log"]
    assert leaks(secrets, outputs) == []
