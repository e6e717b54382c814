"""TOML out of files that others wrote: a document, or NotToml, whatever the text holds. Imports nothing of p2pd.

The standard library's parser lets other errors through than its own: for numbers of thousands of digits, and for tables
within tables so deep that nothing can walk through them.
"""

from __future__ import annotations

import tomllib
from typing import Any

DEPTH_MAX = 64  # tables and arrays within each other; containerd's configuration has six


class NotToml(ValueError):
    """The text is not TOML, or not such as anybody writes; the message says where, without the file's name."""


def parse(text: str) -> dict[str, Any]:
    """The document. NotToml."""
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise NotToml(f"tables or arrays more than {DEPTH_MAX} deep") from None
    except ValueError as error:
        raise NotToml(str(error)) from None
    level: list[Any] = [document]
    for _ in range(DEPTH_MAX):
        level = [inner for value in level for inner in _inside(value) if isinstance(inner, dict | list)]
        if not level:
            return document
    raise NotToml(f"tables or arrays more than {DEPTH_MAX} deep")


def _inside(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value
