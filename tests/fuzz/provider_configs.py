"""A CredentialProviderConfig, in YAML or JSON: plugins, or BadCredentials that names the file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from p2pd.upstream.credentials import BadCredentials
from p2pd.upstream.kubelet import PROVIDERS_MAX, read_providers

FOLDER = Path(tempfile.mkdtemp(prefix="p2pd-fuzz-"))
PROGRAM = FOLDER / "cloud"
PROGRAM.write_text("")
PROGRAM.chmod(0o755)


def check(data: bytes) -> None:
    path = FOLDER / "providers.yaml"
    path.write_bytes(data)
    try:
        providers = read_providers(path, FOLDER)
    except BadCredentials as error:
        assert str(error).startswith(f"{path}: ") and len(str(error)) < 500
        return
    assert len(providers) <= PROVIDERS_MAX
    for provider in providers:
        assert provider.program.parent == FOLDER
        assert provider.lifetime_s >= 0
        for glob in provider.globs:
            glob.matches("registry.example:5000", "team/app")
