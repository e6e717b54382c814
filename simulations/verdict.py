"""Runs with liars: drawn from seeds, and what must hold of each. `p2pd-sim hunt --liars`.

- every honest node that lives has proven every layer, with the blob's own pieces;
- no honest node is convicted, and none is avoided by another honest one;
- upstream sends little more than one copy, unless a liar was a seeder.
"""

from __future__ import annotations

from random import Random

from simulations.scenario import LIES
from simulations.world import World

NODES = (3, 6, 9, 12)
LIARS_SHARE = 3  # at most one in so many nodes
COPIES_MAX = 1.1
IMAGES = ("6MB", "12MB", "3MB,8MB")
LARGE, LARGE_LINK, LARGE_EVERY = "33MB,40MB", "60MB/s", 10  # lists of more than one window, and layers that take longer


def draw(seed: int) -> dict[str, str]:
    """A small rollout with up to a third of liars, as parameters in text; the same for the same seed."""
    random = Random(seed)
    nodes = random.choice(NODES)
    count = random.randint(1, nodes // LIARS_SHARE)
    image, link = random.choice(IMAGES), "20MB/s"
    if seed % LARGE_EVERY == 0:
        image, link = LARGE, LARGE_LINK
    return {
        "nodes": str(nodes), "image": image, "link": link, "upstream": link,
        "seed": str(seed), "check": "true", "trackers": random.choice(("1", "1", "0")),
        "liars": ",".join(random.choice(LIES) for _ in range(count)),
    }  # fmt: skip


def problems(world: World) -> list[str]:
    """What did not hold."""
    liars, found = world.liars, []
    assert liars
    for host in world.hosts:
        if host.number not in liars.of and not all(a.proven for a in host.layers.values()):
            found.append(f"n{host.number} has not proven every layer")
    honest = [number for number in liars.convicted if number not in liars.of]
    if honest:
        found.append(f"honest nodes are convicted: {honest}")
    if liars.accused_honest:
        found.append(f"honest nodes are avoided: {liars.accused_honest[:3]}")
    copies = world.pulls.bytes_sent / world.scenario.total
    if copies > COPIES_MAX and not liars.seeded:
        found.append(f"{copies:.2f} copies from upstream")
    return found
