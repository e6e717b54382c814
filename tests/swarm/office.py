"""A directory with its clock, and nodes that speak to it by name: for tests that read like a column of events."""

from __future__ import annotations

from random import Random

from p2pd.swarm.directory import NEW_S, Directory
from p2pd.swarm.messages import Announce, Answer, Holdings, Message, Release, Withdraw
from tests.swarm.fakes import contact, digest_of

BLOB = digest_of("blob")


class Office:
    """Everything that the directory sends is kept in `heard`, by name, as it came."""

    def __init__(self, *names: str, seed: int = 1, settled: bool = True) -> None:
        self.now = 100.0
        self.directory = Directory(Random(seed), self.now)
        self.heard: list[tuple[str, Answer]] = []
        self._names: dict[bytes, str] = {}
        if settled:
            self.now += NEW_S
        for name in names:
            self.connect(name)

    def connect(self, name: str) -> None:
        self._names[contact(name).node_id] = name
        self.directory.connected(contact(name))

    def disconnect(self, name: str) -> list[str]:
        return self._note(self.directory.disconnected(contact(name).node_id, self.now))

    def tell(self, name: str, message: Message) -> list[str]:
        return self._note(self.directory.handle(contact(name).node_id, message, self.now))

    def announce(self, name: str, blob: bytes = BLOB, **changes: object) -> Answer | None:
        """The directory's answer to this node's announcement, if there was one."""
        values = {
            "digest": blob, "size": 1 << 20, "kind": "blob", "upstream": "reg", "repository": "app", "primary": True,
            "wanting": True, "waiting": True, "stuck": False, "can_pull": True, "complete": False, "term": 0,
            "progress": 0, "heard": 0, "need": 0,
        }  # fmt: skip
        before = len(self.heard)
        self.tell(name, Announce(**(values | changes)))
        answers = [answer for to, answer in self.heard[before:] if to == name]
        return answers[-1] if answers else None

    def release(self, name: str, reason: str, retry_s: int = 0, blob: bytes = BLOB) -> list[str]:
        return self.tell(name, Release(blob, 0, reason, retry_s))

    def withdraw(self, name: str, blob: bytes = BLOB) -> list[str]:
        return self.tell(name, Withdraw(blob))

    def holdings(self, name: str, *blobs: bytes) -> None:
        self.tell(name, Holdings(blobs))

    def wait(self, seconds: float) -> list[Answer]:
        """Let time pass in steps of a tick; what was sent meanwhile."""
        before, end = len(self.heard), self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 0.1)
            self._note(self.directory.tick(self.now))
        return [answer for _, answer in self.heard[before:]]

    def holder(self, blob: bytes = BLOB) -> str:
        lease = self.directory.lease(blob)
        return self._names[lease[0]] if lease else ""

    def term(self, blob: bytes = BLOB) -> int:
        lease = self.directory.lease(blob)
        return lease[1] if lease else 0

    def failures(self, since: int = 0) -> list[tuple[str, str]]:
        return [(name, answer.failure) for name, answer in self.heard[since:] if answer.failure]

    def _note(self, out: list[tuple[bytes, Message]]) -> list[str]:
        for node, message in out:
            assert isinstance(message, Answer)
            self.heard.append((self._names[node], message))
        return [self._names[node] for node, _ in out]
