"""curl and skopeo against the mirror: what a library made for tests can't show."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from random import Random

import trio

from tests.mirror.conftest import BLOB_SIZE, MANIFEST_TYPE, Mirror
from tests.mirror.fake_library import FakeLibrary

RUN_WITHIN_S = 30.0


async def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(RUN_WITHIN_S):
        return await trio.run_process(list(command), capture_stdout=True, capture_stderr=True, check=check)


def add_image(library: FakeLibrary, upstream: str, repository: str, tag: str) -> dict[str, bytes]:
    """A small image of one layer, with a real tar inside; its blobs by digest."""
    layer_tar = io.BytesIO()
    with tarfile.open(fileobj=layer_tar, mode="w") as tar:
        info = tarfile.TarInfo("data")
        info.size = 2_000_000
        tar.addfile(info, io.BytesIO(Random(3).randbytes(info.size)))
    layer = library.add(body := gzip.compress(layer_tar.getvalue(), mtime=0))
    diff_id = "sha256:" + hashlib.sha256(layer_tar.getvalue()).hexdigest()
    config_body = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}, "config": {}}
    ).encode()
    config = library.add(config_body)
    manifest_body = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config.digest,
                "size": config.size,
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": layer.digest,
                    "size": layer.size,
                }
            ],
        }
    ).encode()
    manifest = library.add(manifest_body, media_type=MANIFEST_TYPE)
    library.tag(upstream, repository, tag, manifest)
    return {layer.digest: body, config.digest: config_body, manifest.digest: manifest_body}


async def test_curl_ranges(mirror: Mirror, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{mirror.port}/v2/library/test/blobs/{mirror.blob.digest}?ns=docker.io"
    out = tmp_path / "out"
    for asked, expected in (
        ("100-199", mirror.body[100:200]),
        ("299000-", mirror.body[299_000:]),
        ("-7", mirror.body[-7:]),
    ):
        result = await run("curl", "-sS", "-o", str(out), "-w", "%{http_code}", "-r", asked, url)
        assert (result.stdout, out.read_bytes()) == (b"206", expected)
    result = await run("curl", "-sS", "-o", str(out), "-w", "%{http_code}", "-r", "900000-", url)
    assert result.stdout == b"416"
    result = await run("curl", "-sS", "-I", url)
    assert f"content-length: {BLOB_SIZE}".encode() in result.stdout.lower()


async def test_curl_resumes_a_body_that_was_cut_off(mirror: Mirror, tmp_path: Path) -> None:
    from p2pd.mirror import Interrupted

    url = f"http://127.0.0.1:{mirror.port}/v2/library/test/blobs/{mirror.blob.digest}"
    out = tmp_path / "out"
    mirror.blob.ready = 123_456
    mirror.blob.fail(Interrupted("no progress"))
    result = await run("curl", "-sS", "-o", str(out), url, check=False)
    assert result.returncode == 18  # CURLE_PARTIAL_FILE: what FIN gives; a reset would be 56
    assert out.read_bytes() == mirror.body[:123_456]
    mirror.blob.make_ready(BLOB_SIZE)
    await run("curl", "-sS", "-C", "-", "-o", str(out), url)
    assert out.read_bytes() == mirror.body
    assert mirror.blob.waits[-1] == 123_456


async def test_skopeo_in_the_path_form(mirror: Mirror, tmp_path: Path) -> None:
    """It tries TLS first, then pings, and names the upstream in the path."""
    blobs = add_image(mirror.library, "docker.io", "library/test", "real")
    source = f"docker://127.0.0.1:{mirror.port}/docker.io/library/test:real"
    began = trio.current_time()
    result = await run("skopeo", "inspect", "--tls-verify=false", "--no-tags", "--raw", source)
    assert json.loads(result.stdout)["mediaType"] == MANIFEST_TYPE
    await run("skopeo", "copy", "--src-tls-verify=false", source, f"oci:{tmp_path}/copy:real")
    assert trio.current_time() - began < 9  # a mirror that hangs on the TLS hello costs it 10 s a connection
    copied = {f"sha256:{path.name}": path.read_bytes() for path in (tmp_path / "copy/blobs/sha256").iterdir()}
    assert copied == blobs
    assert all(mirror.library.patient)


async def test_skopeo_copies_a_layer_that_is_still_coming(mirror: Mirror, tmp_path: Path) -> None:
    blobs = add_image(mirror.library, "docker.io", "library/test", "real")
    layer = mirror.library.blobs[max(blobs, key=lambda digest: len(blobs[digest]))]
    layer.ready = 0

    async def bring_it() -> None:
        for ready in (1, layer.size // 3, layer.size):
            await trio.sleep(0.1)
            layer.make_ready(ready)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bring_it)
        source = f"docker://127.0.0.1:{mirror.port}/docker.io/library/test:real"
        await run("skopeo", "copy", "--src-tls-verify=false", source, f"oci:{tmp_path}/copy:real")
    digests = {f"sha256:{path.name}" for path in (tmp_path / "copy/blobs/sha256").iterdir()}
    assert digests == set(blobs)
