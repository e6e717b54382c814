"""Real OCI images, made of real files of this machine, with layers of chosen sizes.

A layer is a tar (or tar+gzip) of files found under /usr, cut to size; an image is some layers, a config and a manifest
in an OCI image layout (image-spec v1.1), pushed by skopeo. Layers are kept under a cache directory and never change
there, so each test pays for a hard link. Not a general image builder; knows no registry but the address it pushes to.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from simulations.lab.process import LabError, run

SOURCES = ("/usr/lib", "/usr/bin", "/usr/share", "/usr/sbin", "/usr/include", "/usr/local")
SOURCE_FILES_MAX = 20_000  # enough for gigabytes; keeps the walk under a second
SOURCE_FILE_MIN = 4 * 1024  # smaller ones would make a layer mostly tar headers
SOURCE_FILE_MAX = 32 * 1024 * 1024

LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"

_CACHE_VERSION = "1"  # raise it when a layer of the same spec is made differently
_GZIP_SLACK = 96 * 1024  # what zlib may still hold back while a layer grows


def cache_directory() -> Path:
    """$P2PD_LAB_CACHE, or a directory in the temporary one that stays between runs."""
    path = Path(os.environ.get("P2PD_LAB_CACHE") or Path(tempfile.gettempdir()) / f"p2pd-lab-cache-{os.getuid()}")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@dataclass(frozen=True, slots=True)
class Layer:
    """What to make: at most `size` bytes as pushed, and less than 0.2 MB below it, of files that `seed` chooses."""

    size: int
    seed: int = 0
    compress: bool = False


@dataclass(frozen=True, slots=True)
class Blob:
    """A made blob: what a descriptor says of it, and where its bytes are."""

    digest: str
    size: int
    media_type: str
    path: Path

    def descriptor(self) -> dict[str, object]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True)
class Image:
    """A made image in an OCI layout. `blobs` has the manifest first, then the config, then the layers, in order."""

    layout: Path
    tag: str
    blobs: tuple[Blob, ...]

    @property
    def manifest(self) -> Blob:
        return self.blobs[0]

    @property
    def layers(self) -> tuple[Blob, ...]:
        return tuple(blob for blob in self.blobs if ".layer." in blob.media_type)

    @property
    def size(self) -> int:
        """Bytes of everything that a pull moves."""
        return sum(blob.size for blob in self.blobs)

    @property
    def biggest(self) -> Blob:
        return max(self.blobs, key=lambda blob: blob.size)


@cache
def _source_files() -> tuple[tuple[str, int], ...]:
    found: list[tuple[str, int]] = []
    for source in SOURCES:
        for folder, folders, files in os.walk(source):
            folders.sort()
            for name in sorted(files):
                path = os.path.join(folder, name)
                status = os.lstat(path)
                if os.path.isfile(path) and not os.path.islink(path) and status.st_size >= SOURCE_FILE_MIN:
                    found.append((path, min(status.st_size, SOURCE_FILE_MAX)))
            if len(found) >= SOURCE_FILES_MAX:
                return tuple(found)
    if not found:
        raise LabError(f"no readable files under {', '.join(SOURCES)} to make layers of")
    return tuple(found)


def _files(seed: int) -> Iterator[tuple[str, str, int]]:
    """(name in the tar, path, bytes) without end: from a place that the seed chooses, round and round."""
    files = _source_files()
    start = int.from_bytes(hashlib.sha256(f"start {seed}".encode()).digest()[:4], "big") % len(files)
    turn = 0
    while True:
        for place in range(len(files)):
            path, size = files[(start + place) % len(files)]
            yield f"turn-{turn}{path}", path, size
        turn += 1


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o644, 0
    return entry


def _write_tar(out: _Counter, stored: _Counter, layer: Layer) -> None:
    """Adds files until `stored` (what is behind the compression, if any) has the layer's size; the last is cut."""
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:  # type: ignore[call-overload]
        for number, (name, path, size) in enumerate(_files(layer.seed)):
            left = layer.size - stored.count - 2 * tarfile.RECORDSIZE  # the end: two blocks of zeros, a whole record
            if left < (_GZIP_SLACK if layer.compress else tarfile.BLOCKSIZE * 2):
                break
            # A name of 100 bytes and more would get header blocks of its own.
            short = name if len(name) < 90 else f"{name[:40]}-{number}"
            with open(path, "rb") as source:
                body = source.read(min(size, left - tarfile.BLOCKSIZE))
            tar.addfile(_entry(short, len(body)), io.BytesIO(body))


class _Counter(io.RawIOBase):
    """Counts and hashes what goes into a file."""

    def __init__(self, target: IO[bytes] | gzip.GzipFile) -> None:
        self.target, self.count, self.sha256 = target, 0, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.count

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.target.write(data)
        self.sha256.update(data)
        self.count += len(data)
        return len(data)


def build_layer(layer: Layer) -> tuple[Blob, str]:
    """The blob of a layer and its diff id (the digest of the uncompressed tar). Made once, then from the cache."""
    folder = cache_directory() / "layers"
    folder.mkdir(exist_ok=True)
    key = f"v{_CACHE_VERSION}-{layer.size}-{layer.seed}-{'gzip' if layer.compress else 'tar'}"
    path, note = folder / key, folder / f"{key}.json"
    if not note.exists():
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            stored = _Counter(file)
            if layer.compress:
                with gzip.GzipFile(fileobj=stored, mode="wb", compresslevel=1, mtime=0, filename="") as zipped:
                    plain = _Counter(zipped)
                    _write_tar(plain, stored, layer)
            else:
                plain = stored
                _write_tar(plain, stored, layer)
        os.rename(file.name, path)
        about = {"digest": stored.sha256.hexdigest(), "size": stored.count, "diff_id": plain.sha256.hexdigest()}
        _write_whole(note, json.dumps(about).encode())
    about = json.loads(note.read_text())
    kind = LAYER_GZIP if layer.compress else LAYER_TAR
    return Blob(f"sha256:{about['digest']}", about["size"], kind, path), f"sha256:{about['diff_id']}"


def _write_whole(path: Path, body: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(body)
    os.rename(file.name, path)


def _put(layout: Path, body: bytes, media_type: str) -> Blob:
    digest = hashlib.sha256(body).hexdigest()
    path = layout / "blobs" / "sha256" / digest
    path.write_bytes(body)
    return Blob(f"sha256:{digest}", len(body), media_type, path)


def _start_layout(layout: Path) -> None:
    (layout / "blobs" / "sha256").mkdir(parents=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _finish_layout(layout: Path, top: Blob, tag: str) -> None:
    entry = {**top.descriptor(), "annotations": {"org.opencontainers.image.ref.name": tag}}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}))


def _link(blob: Blob, layout: Path) -> Blob:
    path = layout / "blobs" / "sha256" / blob.digest.removeprefix("sha256:")
    if not path.exists():
        try:
            os.link(blob.path, path)
        except OSError:  # the cache is on another file system
            path.symlink_to(blob.path)
    return Blob(blob.digest, blob.size, blob.media_type, path)


def _manifest(layout: Path, layers: Sequence[Layer], architecture: str) -> tuple[Blob, ...]:
    made = [build_layer(layer) for layer in layers]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in made]},
    }
    config_blob = _put(layout, json.dumps(config, sort_keys=True).encode(), CONFIG)
    blobs = [_link(blob, layout) for blob, _ in made]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config_blob.descriptor(),
        "layers": [blob.descriptor() for blob in blobs],
    }
    return _put(layout, json.dumps(manifest, sort_keys=True).encode(), MANIFEST), config_blob, *blobs


def build_image(layout: Path, layers: Sequence[Layer], *, tag: str = "latest", architecture: str = "amd64") -> Image:
    """An image in a new OCI layout at `layout`, a path that must not exist yet."""
    _start_layout(layout)
    blobs = _manifest(layout, layers, architecture)
    _finish_layout(layout, blobs[0], tag)
    return Image(layout, tag, blobs)


def build_index(layout: Path, platforms: dict[str, Sequence[Layer]], *, tag: str = "latest") -> tuple[Blob, Image]:
    """An index of one image for each architecture. Returns the index's blob and the image of amd64."""
    _start_layout(layout)
    images = {architecture: _manifest(layout, layers, architecture) for architecture, layers in platforms.items()}
    entries = [
        {**blobs[0].descriptor(), "platform": {"os": "linux", "architecture": architecture}}
        for architecture, blobs in images.items()
    ]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    top = _put(layout, json.dumps(index, sort_keys=True).encode(), INDEX)
    _finish_layout(layout, top, tag)
    return top, Image(layout, tag, (top, *images["amd64"]))


def read_layout(layout: Path) -> Image:
    """The one image of an OCI layout that somebody else made. LabError says what is missing."""

    def load(path: Path) -> dict[str, Any]:
        try:
            document = json.loads(path.read_bytes())
        except OSError as error:
            raise LabError(f"{path}: {error.strerror}") from None
        except ValueError:
            raise LabError(f"{path}: not JSON") from None
        if not isinstance(document, dict):
            raise LabError(f"{path}: not an object")
        return document

    def blob(entry: dict[str, Any]) -> Blob:
        path = layout.joinpath("blobs", *str(entry["digest"]).split(":", 1))
        if not path.is_file():
            raise LabError(f"{layout}: {entry['digest']} is not in it")
        return Blob(entry["digest"], path.stat().st_size, entry["mediaType"], path)

    try:
        entries = load(layout / "index.json")["manifests"]
        if len(entries) != 1:
            raise LabError(f"{layout}: {len(entries)} images; allowed: a layout of one (skopeo copy makes it)")
        top = blob(entries[0])
        manifest = load(top.path)
        if "layers" not in manifest:
            raise LabError(f"{layout}: an index of several platforms; allowed: one image (skopeo copy chooses)")
        blobs = (top, blob(manifest["config"]), *map(blob, manifest["layers"]))
        return Image(layout, entries[0].get("annotations", {}).get("org.opencontainers.image.ref.name", ""), blobs)
    except (KeyError, TypeError, AttributeError) as error:
        raise LabError(f"{layout}: no OCI layout: {error!r}") from None


def push(
    image: Image,
    address: str,
    repository: str,
    *,
    prefix: Sequence[str] = (),
    manifest_type: str = "oci",
    tag: str = "",
) -> None:
    """Pushes an image to a plain-HTTP registry at `address` ("127.0.0.1:5000"), by default with the layout's tag.

    With `manifest_type` "oci" the digests stay what they are; "v2s2" makes skopeo write Docker's manifest types.
    """
    keep = ["--preserve-digests"] if manifest_type == "oci" else ["--format", manifest_type]
    run(
        [
            *("skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--dest-tls-verify=false", *keep),
            f"oci:{image.layout}:{image.tag}" if image.tag else f"oci:{image.layout}",
            f"docker://{address}/{repository}:{tag or image.tag}",
        ],
        prefix=prefix,
    )
