"""A token service as registries have them: checks who asks, signs what docker-registry then verifies (ES256, x5c)."""

from __future__ import annotations

import base64
import datetime
import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

SERVICE = "registry under test"
ISSUER = "token service"
USERS = {"alice": "s3cret, with a comma", "bob": "b0b's own"}
BOBS = "bobs/"  # what bob may pull begins so
REFRESH_TOKENS = {"refresh-me"}


@dataclass
class Asked:
    method: str
    scopes: list[str]
    service: str
    authorization: str | None
    form: dict[str, list[str]]


class TokenService:
    """Serves in a thread. Anybody may pull "public/..."; users (but bob) and refresh tokens may pull all."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.issued: list[str] = []
        self.expires_in: int | None = 300
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self_signed(self.key)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.realm = f"http://127.0.0.1:{self.server.server_address[1]}/token?account=p2pd"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def write_bundle(self, path: Path) -> None:
        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def decide(self, asked: Asked) -> tuple[int, dict]:
        """Status and document: a refused scope is left out of the token, wrong credentials are a 401."""
        form = {name: values[0] for name, values in asked.form.items()}
        user, password = "", ""
        if asked.method == "POST" and form.get("grant_type") == "password":
            user, password = form.get("username", ""), form.get("password", "")
        elif asked.authorization is not None:
            user, _, password = base64.b64decode(asked.authorization.removeprefix("Basic ")).decode().partition(":")
        if user and USERS.get(user) != password:
            return 401, {}
        if asked.method == "POST" and not user and form.get("refresh_token") not in REFRESH_TOKENS:
            return 401, {}
        allowed = "public/" if asked.method == "GET" and not user else BOBS if user == "bob" else ""
        access = []
        for scope in asked.scopes:
            kind, name, actions = scope.split(":")
            if name.startswith((allowed, "public/")):
                access.append({"type": kind, "name": name, "actions": actions.split(",")})
        document = {"access_token" if asked.method == "POST" else "token": self.sign(access)}
        if self.expires_in is not None:
            document["expires_in"] = self.expires_in
        return 200, document

    def sign(self, access: list[dict]) -> str:
        now = int(time.time())
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        claims = {"iss": ISSUER, "aud": SERVICE, "sub": "", "nbf": now - 10, "iat": now, "exp": now + 300}
        claims |= {"jti": str(time.monotonic_ns()), "access": access}
        text = f"{_b64(json.dumps(header).encode())}.{_b64(json.dumps(claims).encode())}"
        r, s = decode_dss_signature(self.key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        token = f"{text}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
        self.issued.append(token)
        return token


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


def _handler(service: TokenService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(parse_qs(urlsplit(self.path).query), {})

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            self._answer(form, form)

        def _answer(self, question: dict[str, list[str]], form: dict[str, list[str]]) -> None:
            scopes = [one for scope in question.get("scope", []) for one in scope.split()]
            authorization = self.headers.get("authorization")
            asked = Asked(self.command, scopes, question.get("service", [""])[0], authorization, form)
            service.asked.append(asked)
            status, document = service.decide(asked)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
