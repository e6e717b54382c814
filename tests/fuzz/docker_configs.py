"""A docker config.json: credentials that can be sent, None, or BadCredentialFile, which names no secret."""

from __future__ import annotations

from pathlib import Path

from p2pd.upstream.credentials import BadCredentialFile, IdentityToken, Password, parse_docker_config

PATH = Path("/etc/p2pd/config.json")


def check(data: bytes) -> None:
    for host in ("docker.io", "r.example:5000"):
        try:
            found = parse_docker_config(data, host, PATH)
        except BadCredentialFile as error:
            assert str(error).startswith(str(PATH)) and len(str(error)) < 200
            continue
        if isinstance(found, Password):
            header = found.basic()
            assert header.isascii() and header.isprintable()
        elif isinstance(found, IdentityToken):
            assert found.token.encode()
