"""What is tried, and what must hold in each case."""

from __future__ import annotations

from tests.hostile.fleet import Case, Outcome

COPIES_MAX = 1.1  # upstream bytes over blob bytes, where the seeder itself did not lie
MISFIT = ("a piece that does not fit its link",)
FALSE_WORD = ("an accusation that the proven chain does not bear out", "a retraction whose signature is wrong")
STREAMED = {"size": 24_000_000, "rate": 4e6, "hold_back": "0.5s"}
PROVEN_ONLY = STREAMED | {"stream": "proven"}

CASES = (
    Case("calm"),
    Case("flips bits", ("flips",), says=MISFIT),
    Case("forges a run", ("forges-run",), evidence=True),
    Case("lies as the seeder", ("forges-seed",), evidence=True, seeder_lies=True),
    Case("has nothing of what it says", ("has-all",)),
    Case("answers slowly", ("answers-slowly",)),
    Case("reads slowly", ("reads-slowly",)),
    Case("replays", ("replays",), flips_once=True, seeder_lies=True),
    Case("claims leases and sits", ("sits",)),
    Case("floods", ("floods",)),  # a connection is read at 2000 messages/s: the rest waits in the flooder's own memory
    Case("accuses", ("accuses",), says=FALSE_WORD),
    Case("directory: nobody can", ("directory-fails",), trackerless=True),
    Case("directory: a ghost holds it", ("directory-sits",), trackerless=True),
    Case("directory: everybody holds it", ("directory-grants",), trackerless=True),
    Case("tracker: nobody can", tracker="directory-fails"),
    Case("tracker: a ghost holds it", tracker="directory-sits"),
    Case("tracker: everybody holds it", tracker="directory-grants", costs_copies=True),
    Case("claims, without tracker", ("sits",), trackerless=True),
    Case("four of twelve", ("flips", "forges-run", "has-all", "accuses"), nodes=12, evidence=True, says=MISFIT),
    Case("four others of twelve", ("forges-seed", "sits", "replays", "floods"), nodes=12, seeder_lies=True),
    Case("streamed: flips bits", ("flips",), says=MISFIT, **STREAMED),
    Case("streamed: forges a run", ("forges-run",), evidence=True, **STREAMED),
    Case("streamed: lies as the seeder", ("forges-seed",), evidence=True, seeder_lies=True, **STREAMED),
    Case("the same, stream = proven", ("forges-seed",), evidence=True, seeder_lies=True, **PROVEN_ONLY),
)  # fmt: skip


def problems(o: Outcome) -> list[str]:
    """What did not hold."""
    case, found = o.case, []
    if not o.running:
        found.append("an honest daemon ended")
    if not o.lied:
        found.append("a liar's daemon ended: nothing is shown")
    if o.unproven:
        found.append(f"not proven at {', '.join(o.unproven)}")
    for seen in o.seen:
        is_streamed = case.seeder_lies and case.hold_back == STREAMED["hold_back"] and case.stream == "vouched"
        if not seen.is_prefix and not is_streamed:
            found.append(f"{seen.name}'s client got wrong bytes")
        if not seen.is_prefix and not seen.was_cut:
            found.append(f"{seen.name}'s client got a whole wrong blob")
        if not seen.right and seen.is_prefix:
            found.append(f"{seen.name}'s client did not get the blob")
    liars = {f"liar{number}" for number in range(1, len(case.liars) + 1)}
    if case.evidence and not liars & set(o.convicted):
        found.append("no liar is convicted by evidence")
    if case.says and not any(words in said for name in liars for said in o.named.get(name, []) for words in case.says):
        found.append(f"nobody says of a liar: {' or '.join(case.says)}")
    innocent = set(o.convicted) - liars - {""}
    if innocent and not case.flips_once:
        found.append(f"convicted: {', '.join(innocent)}")
    if o.barred_honest:
        found.append(f"barred: {', '.join(o.barred_honest)}")
    if o.accused_honest:
        found.append(f"blamed: {o.accused_honest}")
    if o.copies > COPIES_MAX and not (case.seeder_lies or case.costs_copies):
        found.append(f"{o.copies:.2f} copies from upstream")
    return found
