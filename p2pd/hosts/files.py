"""Changes to other programs' configuration files: planned first, shown or made after, whole or not at all.

Knows nothing of any format. Imports nothing of p2pd.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

FILE_SIZE_MAX = 4 << 20  # bytes; such files have a few KiB
BACKUP = ".p2pd-backup"  # after the file's name; no client reads files that end so
BACKUPS_MAX = 100  # of one file


class HostsError(Exception):
    """A client's configuration that can't or must not be changed; str() names the file and the remedy."""


@dataclass(frozen=True)
class Change:
    """One file as it is and as it shall be; None for a file that is not there. `what` says it in a few words.

    `backup`: what is there now is worth a copy. It is not when all that goes are p2pd's own lines.
    """

    path: Path
    before: str | None
    after: str | None
    what: str
    backup: bool = False


@dataclass
class Plan:
    """What would be done, in order, and what the operator should know."""

    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, path: Path, before: str | None, after: str | None, what: str, *, backup: bool = False) -> None:
        """Plan a change, unless there is nothing to change."""
        if before != after:
            self.changes.append(Change(path, before, after, what, backup))


def read(path: Path) -> str | None:
    """The text of a file, line ends kept; None if there is none. HostsError if it can't be read."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_SIZE_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostsError(f"{path} can't be read: {error.strerror}") from None
    if len(data) > FILE_SIZE_MAX:
        raise HostsError(f"{path} is larger than {FILE_SIZE_MAX} bytes: is it what its name says?")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise HostsError(f"{path} is not UTF-8 text, and is left as it is: repair it or move it away") from None


def difference(change: Change) -> str:
    """A change as a unified diff."""
    before = [] if change.before is None else change.before.splitlines(keepends=True)
    after = [] if change.after is None else change.after.splitlines(keepends=True)
    old = "/dev/null" if change.before is None else str(change.path)
    new = "/dev/null" if change.after is None else str(change.path)
    lines = difflib.unified_diff(before, after, old, new)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def apply(change: Change) -> Path | None:
    """Make one change, if the file is still as it was planned on. The backup's path, if one was made."""
    if read(change.path) != change.before:
        raise HostsError(f"{change.path} was changed meanwhile: run the command again")
    try:
        if change.after is None:
            change.path.unlink()
            with contextlib.suppress(OSError):  # not empty: others' files are in it
                change.path.parent.rmdir()
            return None
        change.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        backup = _back_up(change.path, change.before) if change.backup and change.before is not None else None
        _replace(change.path.resolve(), change.after)
    except OSError as error:
        remedy = ": run this as root" if isinstance(error, PermissionError) else ""
        raise HostsError(f"{change.path} can't be written: {error.strerror}{remedy}") from None
    return backup


def _back_up(path: Path, text: str) -> Path | None:
    """A copy beside the file, under a name that no earlier copy has. None if the same text is saved already."""
    for number in range(BACKUPS_MAX):
        backup = path.with_name(path.name + BACKUP + (f".{number}" if number else ""))
        saved = read(backup)
        if saved == text:
            return None
        if saved is None:
            _replace(backup, text, like=path)
            return backup
    raise HostsError(f"{path} has {BACKUPS_MAX} backups: remove the old ones ({path.name}{BACKUP}.*)")


def _replace(path: Path, text: str, like: Path | None = None) -> None:
    """Write the whole file under another name, then give it its own: a reader sees the old text or the new one."""
    try:
        status = os.stat(like or path)
    except FileNotFoundError:
        status = None
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            os.fchmod(file.fileno(), status.st_mode & 0o7777 if status else 0o644)
            if status and (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
