"""All figures rest on the front: it must count what it wrote, pass bytes unchanged, and break things as told."""

from __future__ import annotations

import hashlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab.images import MANIFEST, Blob, Image, Layer
from tests.lab.process import LabError
from tests.lab.registry import Registry
from tests.lab.upstream import Front
from tests.lab.warehouse import Warehouse

pytestmark = pytest.mark.e2e

REPOSITORY = "lab/front"


@pytest.fixture(scope="module")
def image(warehouse: Warehouse) -> Image:
    return warehouse.image(REPOSITORY, [Layer(8_000_000, 11)])


@pytest.fixture(scope="module")
def running(warehouse: Warehouse) -> Iterator[Front]:
    directory = warehouse.lab_directory()
    with Registry(directory / "r", warehouse.storage) as registry, Front(directory / "f", registry.address) as front:
        yield front


@pytest.fixture
def front(running: Front) -> Iterator[Front]:
    running.reset()
    yield running
    running.clear_rules()
    running.set_rate(None)
    running.set_latency(0)


def get(
    front: Front, blob: Blob, *, start: int | None = None, agent: str = "p2pd/0", method: str = "GET"
) -> tuple[int, bytes]:
    """Status and as much of the body as came."""
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=10)
    headers = {"User-Agent": agent} | ({"Range": f"bytes={start}-"} if start is not None else {})
    try:
        connection.request(method, f"/v2/{REPOSITORY}/blobs/{blob.digest}?ns=registry.test", headers=headers)
        with connection.getresponse() as answer:
            try:
                return answer.status, answer.read()
            except http.client.IncompleteRead as error:
                return answer.status, error.partial
    finally:
        connection.close()


def test_bytes_pass_unchanged_and_are_counted_by_client_and_digest(front: Front, image: Image) -> None:
    blob = image.layers[0]
    status, body = get(front, blob)
    assert (status, body) == (200, blob.path.read_bytes())
    status, tail = get(front, blob, start=blob.size - 1000, agent="containerd/1.6.20")
    assert (status, tail) == (206, body[-1000:])
    get(front, blob, method="HEAD")
    traffic = front.traffic()
    assert traffic.body_bytes(name=blob.digest, client="p2pd") == blob.size
    assert traffic.body_bytes(name=blob.digest, client="containerd") == 1000
    assert traffic.requests(name=blob.digest) == 3
    assert [(e.method, e.kind, e.range, e.status, e.ending) for e in traffic.entries] == [
        ("GET", "blob", None, 200, ""),
        ("GET", "blob", f"bytes={blob.size - 1000}-", 206, ""),
        ("HEAD", "blob", None, 200, ""),
    ]


def test_one_connection_carries_several_requests(front: Front, image: Image) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=10)
    for _ in range(3):
        connection.request("GET", f"/v2/{REPOSITORY}/manifests/{image.manifest.digest}", headers={"Accept": MANIFEST})
        assert connection.getresponse().read() == image.manifest.path.read_bytes()
    connection.close()
    assert front.traffic().requests(kind="manifest") == 3


def test_a_client_that_leaves_early_is_counted_for_what_was_written(front: Front, image: Image) -> None:
    blob = image.layers[0]
    front.set_rate(2_000_000)
    with socket.create_connection(("127.0.0.1", front.port)) as connection:
        connection.sendall(f"GET /v2/{REPOSITORY}/blobs/{blob.digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        received = 0
        while received < 500_000:
            received += len(connection.recv(65536))
    front.wait_for(lambda traffic: traffic.entries[0].ended is not None, "the end of the answer")
    entry = front.traffic().entries[0]
    assert entry.ending == "client gone"
    assert received - 1000 <= entry.body_bytes < 2_000_000


def test_the_rate_is_shared_by_all_answers(front: Front, image: Image) -> None:
    front.set_rate(16_000_000)
    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        sizes = list(pool.map(lambda _: len(get(front, image.layers[0])[1]), range(4)))
    taken = time.monotonic() - started
    assert sizes == [image.layers[0].size] * 4
    assert taken > 4 * image.layers[0].size / 16_000_000 * 0.9


def test_it_is_fast_enough_not_to_be_what_is_measured(front: Front, image: Image) -> None:
    started = time.monotonic()
    count = sum(len(get(front, image.layers[0])[1]) for _ in range(8))
    assert count / (time.monotonic() - started) > 100_000_000  # 300 MB/s and more on an idle machine


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_ends_the_body_after_exactly_so_many_bytes(front: Front, image: Image, reset: bool) -> None:
    blob = image.layers[0]
    front.add_rule(name=blob.digest, cut_after=300_000, reset=reset, times=1)
    if reset:
        with pytest.raises(ConnectionResetError):
            get(front, blob)
    else:
        status, body = get(front, blob)
        assert (status, body) == (200, blob.path.read_bytes()[:300_000])
    assert front.traffic().entries[0].body_bytes == 300_000
    assert front.traffic().entries[0].ending == "cut"
    assert len(get(front, blob)[1]) == blob.size


def test_codes_and_retry_after(front: Front, image: Image) -> None:
    front.add_rule(name=image.layers[0].digest, status=429, retry_after=7, client="p2pd", times=2)
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=10)
    connection.request("GET", f"/v2/{REPOSITORY}/blobs/{image.layers[0].digest}", headers={"User-Agent": "p2pd"})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
    assert b"TOOMANYREQUESTS" in answer.read()
    connection.close()
    assert get(front, image.layers[0], agent="containerd/1")[0] == 200
    assert get(front, image.layers[0])[0] == 429
    assert get(front, image.layers[0])[0] == 200


def test_a_flipped_byte_is_the_only_difference_and_knows_ranges(front: Front, image: Image) -> None:
    blob = image.layers[0]
    true = blob.path.read_bytes()
    front.add_rule(name=blob.digest, flip_at=5_000_000)
    for start in (None, 4_999_999):
        _, body = get(front, blob, start=start)
        first = start or 0
        assert [first + place for place, byte in enumerate(body) if byte != true[first + place]] == [5_000_000]
    assert get(front, blob, start=5_000_001)[1] == true[5_000_001:]


def test_a_short_body_looks_whole(front: Front, image: Image) -> None:
    blob = image.layers[0]
    front.add_rule(name=blob.digest, truncate_to=1_000_000)
    assert get(front, blob) == (200, blob.path.read_bytes()[:1_000_000])


def test_ranges_can_be_ignored(front: Front, image: Image) -> None:
    blob = image.layers[0]
    front.add_rule(name=blob.digest, ignore_range=True)
    status, body = get(front, blob, start=7_000_000)
    assert (status, hashlib.sha256(body).hexdigest()) == (200, blob.digest.removeprefix("sha256:"))


def test_a_stall_lasts_until_its_rule_is_gone(front: Front, image: Image) -> None:
    blob = image.layers[0]
    number = front.add_rule(name=blob.digest, stall_after=1_000_000)
    bodies: list[bytes] = []
    thread = threading.Thread(target=lambda: bodies.append(get(front, blob)[1]))
    thread.start()
    front.wait_for_bytes(blob.digest, 1_000_000)
    time.sleep(0.3)
    assert front.traffic().body_bytes(name=blob.digest) == 1_000_000
    assert not bodies
    front.clear_rules(number)
    thread.join(10)
    assert bodies == [blob.path.read_bytes()]


def test_connections_are_refused_and_taken_again(front: Front, image: Image) -> None:
    front.refuse()
    with pytest.raises(ConnectionRefusedError):
        get(front, image.layers[0])
    front.refuse(False)
    assert get(front, image.layers[0])[0] == 200


def test_latency_comes_before_each_answer(front: Front, image: Image) -> None:
    front.set_latency(0.2)
    started = time.monotonic()
    get(front, image.layers[0], method="HEAD")
    assert time.monotonic() - started >= 0.2


def test_an_unknown_fault_is_refused(front: Front) -> None:
    with pytest.raises(LabError, match="colour"):
        front.add_rule(colour="red")
