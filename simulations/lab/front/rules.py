"""What goes wrong at the front, for which requests, how often. Thread-safe; does no I/O.

A rule is a filter and one or more faults. The first rule that matches a request is applied to it, and loses one of its
`times`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields

from simulations.lab.front.ledger import Entry


@dataclass(slots=True)
class Rule:
    """Filters (None matches all) and faults (None is none). Offsets and lengths in bytes, rates in bytes a second.

    `cut_after`, `stall_after` count the bytes of one answer; `flip_at` is a place in the blob, whatever range is asked.
    """

    # filter
    kind: str | None = None  # "blob", "manifest", "tag"
    name: str | None = None  # the digest or tag
    client: str | None = None  # "p2pd", "containerd", "skopeo"
    method: str | None = None
    times: int | None = None  # how many requests it applies to; None: all
    # faults
    status: int | None = None  # answer with this code and no registry
    retry_after: int | None = None  # seconds, sent with `status`
    cut_after: int | None = None  # end the connection after so many bytes of the body
    reset: bool = False  # cut by RST instead of FIN
    truncate_to: int | None = None  # answer whole, with a Content-Length of at most this and no more bytes
    stall_after: int | None = None  # send so many bytes, then nothing until the rule is gone
    flip_at: int | None = None  # change the byte at this offset of the blob
    ignore_range: bool = False  # answer 200 with the whole blob
    rate: float | None = None  # for each answer by itself
    latency: float = 0.0  # seconds before the answer's first byte

    def matches(self, entry: Entry) -> bool:
        wanted = (
            (self.kind, entry.kind),
            (self.name, entry.name),
            (self.client, entry.client),
            (self.method, entry.method),
        )
        return self.times != 0 and all(want is None or want == have for want, have in wanted)


NO_FAULT = Rule()


class Rules:
    """The rules in force, oldest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: dict[int, Rule] = {}
        self._next = 1

    def add(self, settings: dict[str, object]) -> int:
        """A new rule of its fields by name; its number. TypeError names a field that there is not."""
        unknown = settings.keys() - {field.name for field in fields(Rule)}
        if unknown:
            raise TypeError(f"a rule has no {', '.join(sorted(unknown))}")
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._rules[number] = Rule(**settings)  # type: ignore[arg-type]
        return number

    def clear(self, number: int | None = None) -> None:
        """Takes back one rule, or all."""
        with self._lock:
            if number is None:
                self._rules.clear()
            else:
                self._rules.pop(number, None)

    def take(self, entry: Entry) -> Rule:
        """The rule for a request, NO_FAULT if there is none; uses up one of its times."""
        with self._lock:
            for rule in self._rules.values():
                if rule.matches(entry):
                    if rule.times is not None:
                        rule.times -= 1
                    return rule
        return NO_FAULT

    def holds(self, rule: Rule) -> bool:
        """Whether a rule is still in force (a stall ends with its rule)."""
        with self._lock:
            return any(rule is other for other in self._rules.values())
