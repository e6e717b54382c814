"""p2pd.toml, and an override on the command line: a Config, or ConfigError that names file and place.

The first line is an override (KEY=VALUE), the rest the file.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from p2pd.config import ConfigError, load_config

_DIRECTORY = tempfile.TemporaryDirectory(prefix="p2pd-fuzz-")
MESSAGE_MAX = 4096  # characters


def check(data: bytes) -> None:
    override, _, body = data.partition(b"\n")
    path = Path(_DIRECTORY.name) / "p2pd.toml"
    path.write_bytes(body)
    key, equals, value = override.decode("utf-8", "replace").partition("=")
    for overrides, place in (({}, str(path)), ({key: value} if equals else {}, "")):
        try:
            load_config(path, overrides, environ={})
        except ConfigError as error:
            assert place in str(error) and len(str(error)) <= MESSAGE_MAX + 2 * len(data)
