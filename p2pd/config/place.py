"""Where in a TOML text a key stands: a parser gives values without places, and an error should name the line.

Not a parser: the text has been parsed before, and an answer of None ("line unknown") is always allowed.
Knows p2pd.toml.
"""

from __future__ import annotations

from p2pd import toml

Keys = tuple[str, ...]


def line_of(text: str, keys: Keys) -> int | None:
    """The line (from 1) where `keys` is set, else that of the table or inline table that holds it, else None."""
    table: Keys = ()
    best: tuple[int, int] | None = None  # how many of `keys` the line names, and the line
    for number, line in enumerate(text.splitlines(), start=1):
        header = header_keys(line)
        if header is not None:
            table = header
            found = header
        else:
            found = table + key_of(line)
        if found and found != table and keys[: len(found)] == found and (best is None or len(found) > best[0]):
            best = (len(found), number)
        elif header and keys[: len(header)] == header and (best is None or len(header) > best[0]):
            best = (len(header), number)
    return best[1] if best else None


def header_keys(line: str) -> Keys | None:
    """The keys of a `[table]` or `[[table]]` line; None for any other line."""
    stripped = line.strip()
    if not stripped.startswith("["):
        return None
    return _path_in(stripped)


def key_of(line: str) -> Keys:
    """The dotted key before the first `=` that ends one; () for a line without a key."""
    position = line.find("=")
    while position >= 0:
        found = _path_in(line[:position] + "= 0")
        if found is not None:
            return found
        position = line.find("=", position + 1)
    return ()


def dotted(keys: Keys) -> str:
    """Keys as they are written in TOML: upstreams."registry.example:5000".url."""
    return ".".join(key if _is_bare(key) else f'"{key}"' for key in keys)


def _path_in(text: str) -> Keys | None:
    try:
        document: object = toml.parse(text)
    except toml.NotToml:
        return None
    keys: list[str] = []
    while True:
        if isinstance(document, list) and len(document) == 1:
            document = document[0]
        if not isinstance(document, dict) or len(document) != 1:
            return tuple(keys) or None
        ((key, document),) = document.items()
        keys.append(key)


def _is_bare(key: str) -> bool:
    return key != "" and all(c.isascii() and (c.isalnum() or c in "-_") for c in key)
