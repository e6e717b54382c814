"""The SHA-256 state chain of one blob, as far as it is known, and on whose word.

State 0 is the standard's initial value and is known; the end is the digest and is known. Link i takes state i to state
i + 1 (the last link takes its state to the digest, padding included) and is *known* when both are. This module decides
on results; the hashing itself is `p2pd.hashing`, or nothing at all in the simulator.

Invariant: `states` never changes under a piece that is present: a state is forgotten only together with the pieces
that rest on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pd.swarm.messages import Vouch

INITIAL_STATE = bytes.fromhex("6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19")  # FIPS 180-4, 5.3.3
CONTRADICTS = "a voucher that contradicts the chain"
RETRACTED_MAX = 64  # signers remembered as retracted for one blob; more than that many holders never had one lease


@dataclass(slots=True)
class Chain:
    """What is known of the chain of a blob of `count` pieces."""

    digest: bytes
    count: int
    states: dict[int, bytes] = field(default_factory=dict)
    vouchers: dict[int, Vouch] = field(default_factory=dict)  # link -> the voucher that covers it
    retracted: dict[bytes, int] = field(default_factory=dict)  # signer's key -> highest void term

    def __post_init__(self) -> None:
        self.states[0] = INITIAL_STATE
        self.states[self.count] = self.digest

    def link(self, index: int) -> tuple[bytes, bytes] | None:
        """The states before and after piece `index`; None while one of them is unknown."""
        before, after = self.states.get(index), self.states.get(index + 1)
        return None if before is None or after is None else (before, after)

    def accepts(self, voucher: Vouch, size: int) -> str | None:
        """Why this voucher can't be taken in; None if it can. The signature is the caller's to check, after this."""
        last = voucher.first + len(voucher.states) - 1
        if voucher.digest != self.digest or voucher.size != size or last > self.count:
            return "a voucher for another blob"
        if voucher.term <= self.retracted.get(voucher.key, -1):
            return "a voucher that its signer took back"
        return CONTRADICTS if self.contradicted(voucher) else None

    def contradicted(self, voucher: Vouch) -> list[int]:
        """The places, ascending, where the chain knows another state than the voucher says."""
        known = self.states
        return [p for p, state in enumerate(voucher.states, voucher.first) if known.get(p, state) != state]

    def add(self, voucher: Vouch) -> None:
        """Take in a voucher that `accepts` let pass and whose signature holds."""
        for place, state in enumerate(voucher.states, voucher.first):
            self.states.setdefault(place, state)
        for index in range(voucher.first, voucher.first + len(voucher.states) - 1):
            self.vouchers.setdefault(index, voucher)

    def extend(self, index: int, after: bytes) -> bool:
        """Take in a link that this node computed itself; False if another state is already known there."""
        return self.states.setdefault(index + 1, after) == after

    def retract(self, key: bytes, term: int, own: int = 0) -> set[int]:
        """A signer took back its vouchers up to `term`: void them now and refuse them later; returns the links lost."""
        if len(self.retracted) < RETRACTED_MAX or key in self.retracted:
            self.retracted[key] = max(term, self.retracted.get(key, -1))
        return self.void(key, term, own)

    def void(self, key: bytes, term: int, own: int = 0) -> set[int]:
        """Forget the links that rest on a signer's vouchers up to `term`; returns them.

        A link rests on such a voucher if only it tells its states, or if it stands above one that does: a chain is
        computed upwards. `own`: links that this node computed; a signer that vouched for one of those, too, takes
        nothing away.
        """
        theirs = {i for i, v in self.vouchers.items() if v.key == key and v.term <= term}
        for index in theirs:
            del self.vouchers[index]
        lowest = min((i for i in theirs if not own >> i & 1), default=self.count)
        return self.forget(set(range(lowest, self.count)), own)

    def forget(self, links: set[int], own: int = 0) -> set[int]:
        """Forget these links, and every state that neither a remaining voucher nor a link in `own` holds.

        Returns all links that are lost by it.
        """
        known_before = {i for i in range(self.count) if self.link(i)}
        kept = {0: INITIAL_STATE, self.count: self.digest}
        for index in links:
            self.vouchers.pop(index, None)
        for index in known_before - links:
            if index in self.vouchers or own >> index & 1:
                kept[index], kept[index + 1] = self.states[index], self.states[index + 1]
        self.states = kept
        return {i for i in known_before if self.link(i) is None} | links
