"""Real registries over one storage directory: open to all, behind Basic, behind a token service."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import json
import random
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from p2pd.upstream import BlobStream, UpstreamConfig, Upstreams
from tests.lab.process import free_port
from tests.upstream.token_service import ISSUER, SERVICE, TokenService

READY_WITHIN_S = 10.0
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
# bcrypt of "s3cret, with a comma": docker-registry takes nothing else, and no apt package of ours makes it.
HTPASSWD = "alice:$2b$04$abcdefghijklmnopqrstuukqQk5nVnm4vHEKxs7QkQhYKP73/aNEK\n"


@dataclass(frozen=True)
class RealRegistries:
    open: str  # host:port
    basic: str
    token: str
    service: TokenService
    blob: bytes
    blob_digest: str
    manifest: bytes
    manifest_digest: str


@dataclass
class Calls:
    """What on_request was told."""

    made: list[tuple[str, int | None]] = field(default_factory=list)

    def __call__(self, registry: str, kind: str, code: int | None) -> None:
        self.made.append((kind, code))


def upstream(url: str, **values: object) -> tuple[Upstreams, str, Calls]:
    """Upstreams with the one registry at `url`, its host, and the record of its requests."""
    host = url.partition("://")[2]
    private = values.pop("private_address", None)
    extra = {name: values.pop(name) for name in ("clock", "on_rate_limit") if name in values}
    if private is not None:
        extra["private_address"] = private
    calls = Calls()
    values.setdefault("proxy", "")
    config = UpstreamConfig(host=host, url=url, **values)  # type: ignore[arg-type]
    return Upstreams({host: config}, on_request=calls, **extra), host, calls  # type: ignore[arg-type]


async def receive_some(stream: BlobStream, limit: int = 1 << 20) -> bytes:
    """The stream's next bytes, b"" at its end."""
    buffer = bytearray(limit)
    return bytes(buffer[: await stream.receive_into(memoryview(buffer))])


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistries]:
    if shutil.which("docker-registry") is None:
        pytest.fail("docker-registry is not installed: run `make apt`")
    root = tmp_path_factory.mktemp("registries")
    service = TokenService()
    service.write_bundle(root / "bundle.pem")
    (root / "htpasswd").write_text(HTPASSWD)
    auths = {
        "open": "",
        "basic": f"auth:\n  htpasswd:\n    realm: a realm, with a comma\n    path: {root}/htpasswd\n",
        "token": f"auth:\n  token:\n    realm: {service.realm}\n    service: {SERVICE}\n    issuer: {ISSUER}\n"
        f"    rootcertbundle: {root}/bundle.pem\n",
    }
    processes, hosts = [], {}
    try:
        for name, auth in auths.items():
            process, hosts[name] = _start(root, name, auth)
            processes.append(process)
        for host in hosts.values():
            _wait_ready(host)
        blob = random.Random(1).randbytes(3_000_001)
        manifest, digest = _push_image(hosts["open"], ["public/image", "secret/image"], blob)
        yield RealRegistries(
            **hosts,
            service=service,
            blob=blob,
            blob_digest=sha256(blob),
            manifest=manifest,
            manifest_digest=digest,
        )
    finally:
        for process in processes:
            process.kill()
            process.wait()
        service.close()


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _start(root: Path, name: str, auth: str) -> tuple[subprocess.Popen[bytes], str]:
    host = f"127.0.0.1:{free_port()}"
    path = root / f"{name}.yml"
    path.write_text(
        f"version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {root}/data\n"
        f"http:\n  addr: {host}\n  secret: none\n{auth}"
    )
    with (root / f"{name}.log").open("wb") as log:
        command = ["docker-registry", "serve", str(path)]
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT), host


def _wait_ready(host: str) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            urllib.request.urlopen(f"http://{host}/v2/", timeout=2).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"docker-registry at {host} did not start"
            time.sleep(0.02)


def _push_image(host: str, repositories: list[str], layer: bytes) -> tuple[bytes, str]:
    config = b"{}"
    described = [
        {"mediaType": f"application/vnd.oci.image.{kind}", "digest": sha256(data), "size": len(data)}
        for kind, data in (("config.v1+json", config), ("layer.v1.tar", layer))
    ]
    document = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": described[0], "layers": described[1:]}
    manifest = json.dumps(document).encode()
    for repository in repositories:
        for data in (config, layer):
            with _send("POST", f"http://{host}/v2/{repository}/blobs/uploads/") as started:
                location = started.headers["location"]
            separator = "&" if "?" in location else "?"
            _send("PUT", f"{location}{separator}digest={sha256(data)}", data, "application/octet-stream").close()
        for tag in ("v1", "latest"):
            _send("PUT", f"http://{host}/v2/{repository}/manifests/{tag}", manifest, MANIFEST_TYPE).close()
    return manifest, sha256(manifest)


def _send(method: str, url: str, data: bytes = b"", media_type: str = "text/plain"):
    headers = {"Content-Type": media_type}
    return urllib.request.urlopen(urllib.request.Request(url, data=data, method=method, headers=headers), timeout=10)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that vouches for itself, with its key, as one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry under test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "registry.pem"
    pkcs8 = serialization.PrivateFormat.PKCS8
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption())
    )
    return path


def server_context(certificate: Path, *, client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if client:
        context.load_verify_locations(certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
