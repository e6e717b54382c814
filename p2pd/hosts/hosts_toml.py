"""The text of one containerd hosts.toml: p2pd's lines put in before all other hosts, and taken out again.

Text in, text out, no files. The rest of the text stays as it is, comments included: p2pd's lines stand between two
marker lines, and what comes out is parsed again and compared before anyone sees it. Sources: containerd's
docs/hosts.md, and its behaviour from 1.6 to 2.3: hosts are tried in the order of the file, `server` last; a file with
`server` alone is an error in 1.6; an unknown capability is an error, an unknown key (`dial_timeout` before 2.0.7) is
not; `ca`, `client` or `skip_verify` on a plain-HTTP host make containerd try HTTPS first.
"""

from __future__ import annotations

from typing import Any

from p2pd import toml
from p2pd.config.place import header_keys, key_of

BEGIN = "# p2pd begin"
CREATED = "# p2pd begin, in a file made by p2pd"
END = "# p2pd end"
TRIES_MAX = 100  # lines within arrays or long strings that look like a table's header; for each the text is parsed
REPLACED = "# p2pd replaced: "  # before a line that is to come back


class BadText(ValueError):
    """A hosts.toml that can't take p2pd's lines; the message says why, without the file's name."""


def install(text: str, mirror: str, server: str, *, created: bool = False, no_fallback: bool = False) -> str:
    """`text` with `mirror` before all its hosts; the same text again if that is so already.

    `created`: p2pd makes this file; it gets the registry's own URL as `server` too, so that it can be read alone.
    `no_fallback`: the mirror is the server as well.
    """
    created = created or has_created_mark(text)
    old = remove(text)
    before = _parsed(old)
    if mirror in _hosts(before):
        if not no_fallback and next(iter(_hosts(before))) == mirror:
            return text
        raise BadText(f'it has [host."{mirror}"] outside of p2pd\'s lines: remove that table, then install again')
    body = _without_server(old, before) if no_fallback else old
    lines = [CREATED if created else BEGIN]
    if no_fallback:
        lines.append(f'server = "{mirror}"')
    elif "server" not in before and created:
        lines.append(f'server = "{server}"')
    lines += [f'[host."{mirror}"]', 'capabilities = ["pull", "resolve"]', 'dial_timeout = "200ms"', END]
    result = _inserted(body, "".join(f"{line}\n" for line in lines))
    _check(result, before, mirror, no_fallback=no_fallback)
    return result


def remove(text: str) -> str:
    """`text` without p2pd's lines, and with those back that they replaced."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines(keepends=True):
        if line.startswith(BEGIN):
            inside = True
        elif inside:
            inside = line.rstrip() != END
        else:
            kept.append(line.removeprefix(REPLACED))
    if inside:
        raise BadText(f'"{BEGIN}" stands without "{END}": put that line back, or remove p2pd\'s lines by hand')
    result = "".join(kept)
    _parsed(result)
    return result


def has_mark(text: str) -> bool:
    """Whether p2pd's lines are in it."""
    return any(line.startswith(BEGIN) for line in text.splitlines())


def has_created_mark(text: str) -> bool:
    """Whether p2pd made the file."""
    return any(line.startswith(CREATED) for line in text.splitlines())


def host_names(text: str) -> list[str]:
    """The URLs of its hosts, in their order."""
    return list(_hosts(_parsed(text)))


def relative_files(text: str) -> list[str]:
    """Certificates named by a path relative to the directory of the hosts.toml."""
    document = _parsed(text)
    tables = [document, *(host for host in _hosts(document).values() if isinstance(host, dict))]
    names = [name for table in tables for key in ("ca", "client") for name in _strings(table.get(key))]
    return [name for name in names if not name.startswith("/")]


def _parsed(text: str) -> dict[str, Any]:
    try:
        return toml.parse(text)
    except toml.NotToml as error:
        raise BadText(f"it is not TOML: {error}; repair it or move it away") from None


def _hosts(document: dict[str, Any]) -> dict[str, Any]:
    hosts = document.get("host", {})
    return hosts if isinstance(hosts, dict) else {}


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [text for item in value for text in _strings(item)] if isinstance(value, list) else []


def _inserted(text: str, block: str) -> str:
    """`block` before the first table, and before the comment right above that, else at the end."""
    lines = text.splitlines(keepends=True)
    tries = 0
    for number, line in enumerate(lines):
        # Inside an array or a long string, a line can look like a table's header; but then what is above is not TOML.
        if header_keys(line) is None:
            continue
        if not _is_toml("".join(lines[:number])):
            if (tries := tries + 1) == TRIES_MAX:
                raise BadText(f"its first table can't be found behind {tries} lines that look like one: move that up")
            continue
        while number > 0 and lines[number - 1].lstrip().startswith("#"):
            number -= 1
        return "".join(lines[:number]) + block + "".join(lines[number:])
    return text + ("\n" if text and not text.endswith("\n") else "") + block


def _is_toml(text: str) -> bool:
    try:
        toml.parse(text)
    except toml.NotToml:
        return False
    return True


def _without_server(text: str, document: dict[str, Any]) -> str:
    """`text` with its `server` line made a comment, from which `remove` makes it a line again."""
    if "server" not in document:
        return text
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if key_of(line) == ("server",):
            lines[number] = REPLACED + line
            changed = "".join(lines)
            if _is_toml(changed) and "server" not in toml.parse(changed):
                return changed
            lines[number] = line
    raise BadText("its server line can't be found: remove it by hand, then install again")


def _check(result: str, before: dict[str, Any], mirror: str, *, no_fallback: bool) -> None:
    """That containerd will see the mirror first, and all else as before."""
    try:
        after = toml.parse(result)
    except toml.NotToml:
        after = {}
    if next(iter(_hosts(after)), None) != mirror:
        raise BadText(
            f'its hosts are not written as tables, so [host."{mirror}"] can\'t be put before them: '
            'write each as [host."URL"], then install again'
        )
    others = {key: value for key, value in after.items() if key != "host"}
    wanted = {key: value for key, value in before.items() if key != "host"}
    if no_fallback or "server" not in before:
        others.pop("server", None)
        wanted.pop("server", None)
    if others != wanted or list(_hosts(after).items())[1:] != list(_hosts(before).items()):
        raise BadText("p2pd's lines would change the meaning of the others: add them by hand")
