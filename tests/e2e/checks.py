"""What every end-to-end test asks: did all pulls succeed, is every byte right, how much did upstream send."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.lab import Image, Lab, Layer, Machine, Pull

# The smallest blob size with at least 100 pieces of 256 KiB, and a little more.
HUNDRED_PIECES = 27_500_000

ONE_COPY = 1.01  # upstream bytes over image bytes, calm
ONE_COPY_AND_A_DEATH = 1.05  # with a node or a tracker killed, containerd's own requests included
REQUESTS_PER_BLOB = 4

SHORT_WAITS = {"mirror": {"header_wait": "6s"}}  # a test can't wait long for a 404; the rules are the same


def one_layer(seed: int, size: int = HUNDRED_PIECES) -> list[Layer]:
    """An image of one layer of at least 100 pieces, so that there is one lease that matters."""
    return [Layer(size, seed)]


def assert_pulled(lab: Lab, image: Image, pulls: Sequence[Pull], machines: Iterable[Machine] | None = None) -> None:
    """All pulls succeeded and every byte is there."""
    failed = [pull for pull in pulls if not pull.ok]
    assert not failed, "\n".join(f"{pull.code} after {pull.seconds:.1f} s: {pull.errors}" for pull in failed)
    assert lab.differences(image, machines) == {}


def copies(lab: Lab, image: Image) -> float:
    """Bytes that upstream sent for this image, to anyone, over the image's size."""
    traffic = lab.front.traffic()
    return sum(traffic.body_bytes(name=blob.digest) for blob in image.blobs) / image.size


def direct_bytes(lab: Lab) -> int:
    """Bytes that containerd fetched from upstream by itself."""
    return lab.front.traffic().body_bytes(client="containerd")
