"""What a plugin of the kubelet answers: passwords that can be sent, or BadCredentials, which names no secret."""

from __future__ import annotations

from pathlib import Path

from p2pd.upstream.credentials import BadCredentials
from p2pd.upstream.kubelet import DURATION_MAX_S, MATCHES_MAX, Provider, parse_response

PROVIDER = Provider(Path("/plugins/cloud"), (), "credentialprovider.kubelet.k8s.io/v1", 60.0, (), {})


def check(data: bytes) -> None:
    try:
        key_type, lifetime, entries = parse_response(data, PROVIDER)
    except BadCredentials as error:
        assert str(error).startswith("/plugins/cloud answered ") and len(str(error)) < 120
        return
    assert key_type in ("Image", "Registry", "Global") and 0 <= lifetime <= DURATION_MAX_S
    assert len(entries) <= MATCHES_MAX
    for glob, password in entries:
        glob.matches("registry.example:5000", "team/app")
        assert password.basic().isascii()
