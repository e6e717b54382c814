"""Private images, pulled as the kubelet orders it: shared with whoever upstream lets at them, and with nobody else."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.cri import PullFailed, Secret
from tests.e2e.checks import ONE_COPY
from tests.e2e.private import ALICE, BASIC, BOB, TOKEN, Private, private_lab
from tests.lab import Image, Layer, Warehouse

pytestmark = pytest.mark.e2e

REPOSITORY = "secret/app"
OWN = "bobs/app"
OPEN = "public/app"


@pytest.fixture(scope="module")
def image(warehouse: Warehouse) -> Image:
    return warehouse.image(REPOSITORY, [Layer(4_000_000, 901), Layer(2_000_000, 902, compress=True)])


@pytest.fixture(scope="module")
def lab(warehouse: Warehouse, image: Image) -> Iterator[Private]:
    """Three machines: the first two hold the image after their pulls, the third is for those who may not have it."""
    warehouse.image(OWN, [Layer(300_000, 903)])
    warehouse.image(OPEN, [Layer(1_000_000, 904)])
    with private_lab(warehouse, 3) as private:
        yield private


def reference(upstream: str, repository: str = REPOSITORY) -> str:
    return f"{upstream}/{repository}:latest"


@pytest.mark.parametrize("upstream", [BASIC, TOKEN])
def test_a_pull_secret_is_enough_for_one_pull_by_the_fleet(lab: Private, image: Image, upstream: str) -> None:
    """Neither node has credentials of its own: the first pulls with its client's, the second gets it from the first."""
    for machine in lab.machines[:2]:
        machine.cri.pull(reference(upstream), ALICE)
        assert machine.holds(image)
        machine.forget()
    assert lab.copies(upstream, image, "containerd") == 0
    # The second upstream's blobs are the first one's: by then both nodes have them, and only ask who may.
    assert lab.copies(upstream, image, "p2pd") <= ONE_COPY
    assert sum(lab.copies(name, image, "p2pd") for name in (BASIC, TOKEN)) <= ONE_COPY


def test_an_identity_token(lab: Private, image: Image) -> None:
    machine = lab.machines[0]
    machine.cri.pull(reference(TOKEN), Secret(identity_token="refresh-me"))
    assert machine.holds(image)
    assert lab.copies(TOKEN, image, "containerd") == 0
    machine.forget()


@pytest.mark.parametrize(
    ("upstream", "secret"),
    [
        (BASIC, None),
        (BASIC, Secret("alice", "wrong")),
        (BASIC, BOB),
        (TOKEN, None),
        (TOKEN, Secret("alice", "wrong")),
        (TOKEN, BOB),
        (TOKEN, Secret(identity_token="forged")),
        (TOKEN, replace(ALICE, server_address="elsewhere.test")),
    ],
)
def test_whom_upstream_refuses_the_mirror_refuses(
    lab: Private, image: Image, upstream: str, secret: Secret | None
) -> None:
    """Although the first two nodes have it. The refused client asks upstream itself, which says no in its own words."""
    fresh = lab.machines[2]
    front = lab.fronts[upstream]
    front.reset()
    with pytest.raises(PullFailed):
        fresh.cri.pull(reference(upstream), secret)
    assert [blob.digest for blob in image.blobs if fresh.containerd.content(blob.digest).exists()] == []
    assert fresh.node.metrics().total("p2pd_sent_bytes_total", to="client") == 0
    assert front.traffic().requests(client="containerd") > 0
    assert lab.copies(upstream, image, "p2pd") == 0


def test_a_secret_for_the_registry_alone_goes_to_the_registry_alone(lab: Private, image: Image) -> None:
    """With `server_address`, containerd shows it to no mirror; it then pulls past p2pd."""
    fresh = lab.machines[2]
    fresh.cri.pull(reference(BASIC), replace(ALICE, server_address=f"http://{lab.fronts[BASIC].address}"))
    assert fresh.holds(image)
    assert lab.copies(BASIC, image, "containerd") >= 1
    assert fresh.node.metrics().total("p2pd_sent_bytes_total", to="client") == 0
    fresh.forget()


@pytest.mark.parametrize("who", [0, 2])
def test_a_digest_alone_opens_nothing(lab: Private, image: Image, who: int) -> None:
    """Neither on a node that has the blob, nor on one whose peers have it."""
    lab.machines[0].cri.pull(reference(TOKEN), ALICE)
    machine, blob = lab.machines[who], image.biggest
    alice, bob = (
        "Basic " + base64.b64encode(f"{secret.username}:{secret.password}".encode()).decode() for secret in (ALICE, BOB)
    )
    asked = [
        (TOKEN, REPOSITORY, None, 401),
        (TOKEN, REPOSITORY, bob, 404),
        (TOKEN, REPOSITORY, "Bearer forged", 401),
        (TOKEN, OPEN, None, 404),
        (TOKEN, OPEN, alice, 404),
        (TOKEN, OWN, None, 401),
        (TOKEN, OWN, bob, 404),
        (TOKEN, OWN, alice, 404),
        (BASIC, REPOSITORY, None, 401),
        (BASIC, REPOSITORY, bob, 404),
        (BASIC, OPEN, None, 401),
    ]
    for upstream, repository, authorization, status in asked:
        answer = machine.ask(upstream, repository, blob, authorization)
        assert (repository, answer.status, len(answer.body) < 1000) == (repository, status, True), answer.body
    answer = machine.ask(TOKEN, REPOSITORY, blob, alice)
    assert (answer.status, answer.body == blob.path.read_bytes()) == (200, True)
    lab.machines[0].forget()


def test_what_is_public_needs_no_secret_and_gets_none(warehouse: Warehouse, lab: Private) -> None:
    opened = warehouse.image(OPEN, [])
    lab.service.asked.clear()
    for machine, secret in zip(lab.machines, (None, ALICE, BOB), strict=True):
        machine.cri.pull(reference(TOKEN, OPEN), secret)
        assert machine.holds(opened)
    assert [asked for asked in lab.service.asked if asked.authorization or asked.form] == []
    assert lab.copies(TOKEN, opened, "containerd") == 0
    assert lab.copies(TOKEN, opened, "p2pd") <= ONE_COPY


def test_no_repository_is_named_by_the_admin_port(lab: Private) -> None:
    for machine in lab.machines:
        shown = machine.node.admin("/status").body + machine.node.admin("/metrics").body
        for repository in (REPOSITORY, OWN, OPEN):
            assert repository.encode() not in shown
