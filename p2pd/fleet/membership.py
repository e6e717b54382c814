"""The identity as it is now: read again when its files change, and watched for its end.

A file is taken only when it has stood unchanged from one look to the next, and only together with the others: a pair
that is half written or does not fit changes nothing but a warning. May know p2pd.fleet's identity.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime

import trio

from p2pd.fleet.identity import FleetError, FleetFiles, Identity, Span

log = logging.getLogger(__name__)

LOOK_S = 5.0  # between two looks at the files; a change is taken at the second look that sees it
WARN_S = 21 * 86400.0  # before a certificate ends: time for a person to act
WARN_SHARE = 4  # but not before three quarters of its life: what renews by itself has done so by then

Stamp = tuple[tuple[int, ...] | None, ...]


class Membership:
    """`on_change` is called with the identity before and the one now, in the task of `watch`."""

    def __init__(self, files: FleetFiles, clock: Callable[[], float] = time.time) -> None:
        """FleetError if the files can't be used."""
        self._files = files
        self._clock = clock
        self._taken = self._seen = _stamp(files)
        self.identity = Identity.load(files)
        self.on_change: Callable[[Identity, Identity], None] = lambda before, now: None
        self._problem = ""
        self._said: set[str] = set()

    def sign(self, data: bytes) -> bytes:
        """By the key of now."""
        return self.identity.key.sign(data)

    def remaining(self) -> float:
        """Seconds until the certificate ends; below 0 when it has ended."""
        return self.identity.ends_at - self._clock()

    def warnings(self) -> list[str]:
        """What the operator should do something about, now."""
        found = [self._problem] if self._problem else []
        now = self._clock()
        for span in self.identity.chain:
            if now < span.begins_at:
                found.append(f"the certificate {span.name} is valid only from {_date(span.begins_at)}: see the clock")
            found += _ending(span, now, f"{self._files.certificate} must be renewed, or this node will be alone")
        for span in self.identity.authorities:
            found += _ending(span, now, "it must be replaced, and the certificates that it signed")
        if _key_mode(self._files) & 0o007:
            found.append(f"everybody on this machine can read {self._files.key}: chmod o= it")
        return found

    async def watch(self) -> None:
        """For ever: look at the files, and say what is about to end."""
        while True:
            self._say()
            await trio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """One look at the files; takes what has changed and stands still."""
        stamp = await trio.to_thread.run_sync(_stamp, self._files)
        settled, self._seen = stamp == self._seen, stamp
        if settled and stamp != self._taken:
            await self._take(stamp)

    async def _take(self, stamp: Stamp) -> None:
        self._taken = stamp
        try:
            found = await trio.to_thread.run_sync(Identity.load, self._files)
        except FleetError as error:
            self._problem = f"the identity's files have changed and can't be used, so the old one stays: {error}"
            return
        self._problem = ""
        before, self.identity = self.identity, found
        log.info(
            "%s has been read anew: %s, until %s", self._files.certificate, found.chain[0].name, _date(found.ends_at)
        )
        self.on_change(before, found)

    def _say(self) -> None:
        """Each warning once a day: the days that remain are in its text."""
        found = self.warnings()
        for warning in found:
            if warning not in self._said:
                log.warning("%s", warning)
        self._said = set(found)


def _ending(span: Span, now: float, remedy: str) -> list[str]:
    remaining = span.ends_at - now
    if remaining <= 0:
        return [f"the certificate {span.name} ended on {_date(span.ends_at)}: {remedy}"]
    if remaining > min(WARN_S, (span.ends_at - span.begins_at) / WARN_SHARE):
        return []
    days, hours = divmod(int(remaining // 3600), 24)
    left = f"{days} days" if days >= 2 else f"{24 * days + hours} hours"
    return [f"the certificate {span.name} ends in {left}, on {_date(span.ends_at)}: {remedy}"]


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _stamp(files: FleetFiles) -> Stamp:
    """What changes when a file is written or replaced."""
    stamps: list[tuple[int, ...] | None] = []
    for path in (files.ca, files.certificate, files.key):
        try:
            found = path.stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))
    return tuple(stamps)


def _key_mode(files: FleetFiles) -> int:
    try:
        return stat.S_IMODE(os.stat(files.key).st_mode)
    except OSError:
        return 0
