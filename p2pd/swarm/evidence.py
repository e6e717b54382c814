"""What is proved against a signer: a signed link that is not in the proven chain although its state-before is.

Compressing a piece has one result. So whoever knows the proven chain can tell, from a voucher's bytes alone, that its
signer vouched for a link which these bytes of the blob do not give: it lied, or its upstream sent it wrong bytes. One
such case is named; only when it recurs on blobs that others got right is the signer's word refused for a while. Who
builds on another's false states answers for none of them: its links have no state-before that is true.

Not here: what is done with doubtful vouchers before the blob is proven (`trust`), and the files (`p2pd.fleet`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from p2pd.swarm.messages import Accuse, Vouch

DOUBTED_OF_SIGNER_MAX = 512  # vouchers of one signer kept for one blob: every link of a usual blob, signed one by one
DOUBTED_MAX = 1024  # vouchers kept for one blob, of all signers: 2 MiB at the most, until it is proven or forgotten
SIGNERS_MAX = 256  # convicted signers remembered; more than that many liars own the fleet anyway
CASES_MAX = 16  # blobs remembered of one signer: two are enough to refuse its word
CASES_S = 24 * 3600.0  # how long a case counts: an upstream that is broken for a day is not an accident any more
BARRED_AFTER = 2  # cases, each on another blob: one may be its upstream's fault
NEVER_COUNTS = float("-inf")
BARRED_S = 600.0  # for so long after the last case no voucher of the signer is taken
ACCUSATIONS_MAX = 16  # of one peer in ACCUSATIONS_S; each costs a comparison, or one check of a signature
ACCUSATIONS_S = 60.0


def false_link(voucher: Vouch, proven: Mapping[int, bytes]) -> int | None:
    """The lowest link that the voucher's signer answers for and that is false; None if there is none.

    `proven`: all states of the proven chain, by place. The signature is the caller's to check.
    """
    for index, (before, after) in enumerate(zip(voucher.states, voucher.states[1:], strict=False), voucher.first):
        if proven.get(index) == before and proven.get(index + 1, after) != after:
            return index
    return None


@dataclass(slots=True)
class Doubted:
    """The vouchers of one blob that turned out false, or that nobody could decide upon: to be judged when it is proven.

    Signatures have been checked by whoever puts them in.
    """

    vouchers: dict[bytes, Vouch] = field(default_factory=dict)  # signature -> voucher
    _of_signer: dict[bytes, int] = field(default_factory=dict)

    def has_room_for(self, voucher: Vouch) -> bool:
        of_signer = self._of_signer.get(voucher.key, 0)
        return (
            voucher.signature not in self.vouchers
            and of_signer < DOUBTED_OF_SIGNER_MAX
            and len(self.vouchers) < DOUBTED_MAX
        )

    def keep(self, vouchers: Iterable[Vouch]) -> None:
        """As many of them as there is room for."""
        for voucher in vouchers:
            if self.has_room_for(voucher):
                self.vouchers[voucher.signature] = voucher
                self._of_signer[voucher.key] = self._of_signer.get(voucher.key, 0) + 1

    def of(self, key: bytes) -> list[Vouch]:
        return [voucher for voucher in self.vouchers.values() if voucher.key == key]

    def judge(self, proven: Mapping[int, bytes]) -> list[tuple[Vouch, int]]:
        """For each signer of a false link the voucher that shows it, and the link; the lowest link of each."""
        found: dict[bytes, tuple[Vouch, int]] = {}
        for voucher in self.vouchers.values():
            index = false_link(voucher, proven)
            if index is not None and (voucher.key not in found or index < found[voucher.key][1]):
                found[voucher.key] = (voucher, index)
        return list(found.values())


class Cases:
    """Who was convicted, on which blobs, and when. One case for each signer and blob, however often it is shown."""

    def __init__(self) -> None:
        self._of: dict[bytes, dict[bytes, float]] = {}  # key -> digest -> when; NEVER_COUNTS where it does not count

    def add(self, key: bytes, digest: bytes, now: float, counts: bool = True) -> int:
        """The signer's cases with this one; 0 if it is known already, or can't be remembered.

        `counts`: the upstream that the signer names has served others correctly.
        """
        cases = self._of.get(key)
        if cases is None:
            if len(self._of) >= SIGNERS_MAX:
                return 0
            cases = self._of[key] = {}
        if digest in cases or len(cases) >= CASES_MAX:
            return 0
        cases[digest] = now if counts else NEVER_COUNTS
        return len(cases)

    def knows(self, key: bytes, digest: bytes) -> bool:
        return digest in self._of.get(key, ())

    def is_barred(self, key: bytes, now: float) -> bool:
        """Whether that signer's word is refused now."""
        cases = self._of.get(key)
        if not cases:
            return False
        recent = [at for at in cases.values() if now - at < CASES_S]
        return len(recent) >= BARRED_AFTER and now - max(recent) < BARRED_S


class Accusations:
    """How many accusations each peer may still make."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[float, int]] = {}  # peer -> since when, how many

    def admits(self, peer: int, now: float) -> bool:
        since, count = self._of.get(peer, (now, 0))
        if now - since >= ACCUSATIONS_S:
            since, count = now, 0
        self._of[peer] = (since, count + 1)
        return count < ACCUSATIONS_MAX

    def forget(self, peer: int) -> None:
        self._of.pop(peer, None)


def accusation(v: Vouch) -> Accuse:
    """A voucher as an accusation of its signer: nothing needs to be added to it."""
    return Accuse(v.key, v.upstream, v.digest, v.size, v.term, v.first, v.states, v.signature)


def accused(a: Accuse) -> Vouch:
    """The voucher that an accusation shows."""
    return Vouch(a.key, a.upstream, a.digest, a.size, a.term, a.first, a.states, a.signature)
