"""A docker config.json: credentials that can be sent, None, or BadCredentials, which names no secret."""

from __future__ import annotations

from pathlib import Path

from p2pd.upstream.auth_files import AuthFile
from p2pd.upstream.credentials import BadCredentials, IdentityToken, Password

PATH = Path("/etc/p2pd/config.json")


def check(data: bytes) -> None:
    for host in ("docker.io", "r.example:5000"):
        try:
            file = AuthFile(data, PATH)
            assert all(name.startswith("docker-credential-") and "/" not in name for name in file.helpers())
            file.helper(host)
            found = file.find(host, "team/app")
        except BadCredentials as error:
            assert str(error).startswith(str(PATH)) and len(str(error)) < 200
            continue
        if isinstance(found, Password):
            header = found.basic()
            assert header.isascii() and header.isprintable()
        elif isinstance(found, IdentityToken):
            assert found.token.encode()
