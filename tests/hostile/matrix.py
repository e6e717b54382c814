"""Every case, one after another, and a table of how each ended. Exit code 1 if something did not hold.

python -m tests.hostile.matrix [WORDS OF A CASE'S NAME]
"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from tests.hostile.cases import CASES, problems
from tests.hostile.fleet import Case, Fleet, Outcome
from tests.lab import Layer, Warehouse


def try_case(warehouse: Warehouse, case: Case) -> Outcome:
    """One case in a fleet of its own."""
    repository = f"hostile/blob-{case.size}"
    image = warehouse.image(repository, [Layer(case.size, 801)])
    with Fleet(warehouse.lab_directory(), warehouse, case, image) as fleet:
        return fleet.run(repository)


def row(outcome: Outcome) -> list[str]:
    case, wrong = outcome.case, problems(outcome)
    honest = len(outcome.seen)
    named = {name: reasons[0] for name, reasons in outcome.named.items()}
    said = [f"{name} by evidence at {count}" for name, count in outcome.convicted.items()]
    said += [f"{name}: {reason}" for name, reason in named.items()]
    cut = sum(seen.was_cut for seen in outcome.seen)
    return [
        case.name,
        f"{honest - len(outcome.unproven)}/{honest}",
        "; ".join(said) or "-",
        ", ".join([*outcome.accused_honest, *outcome.barred_honest]) or "none",
        f"{outcome.copies:.2f}",
        f"{cut} ({outcome.refuted_streams})",
        f"{max(seen.seconds for seen in outcome.seen):.0f} s",
        "; ".join(wrong) or "holds",
    ]


def main() -> None:
    words = " ".join(sys.argv[1:])
    console = Console(width=220)
    failed = 0
    table = Table(box=None, header_style="bold")
    for title in ("case", "done", "named", "falsely", "upstream", "cut (counted)", "slowest client", "verdict"):
        table.add_column(title, overflow="fold")
    with Warehouse() as warehouse:
        for case in [case for case in CASES if words in case.name]:
            outcome = try_case(warehouse, case)
            table.add_row(*row(outcome))
            failed += bool(problems(outcome))
            print(" | ".join(row(outcome)), flush=True)
    console.print(table)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
