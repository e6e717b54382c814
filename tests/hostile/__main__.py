"""Starts p2pd's real daemon or tracker with one part replaced: see `lies`."""

from __future__ import annotations

import sys

from tests.hostile.lies import LIES


def main() -> None:
    if len(sys.argv) < 3 or sys.argv[2] not in ("p2pd", "p2pd-tracker"):
        sys.exit(f"usage: python -m tests.hostile LIE[,LIE...] p2pd|p2pd-tracker ARGUMENTS; lies: {', '.join(LIES)}")
    for lie in sys.argv[1].split(","):
        LIES[lie]()
    if sys.argv[2] == "p2pd":
        from p2pd.cli import main as program
    else:
        from tracker.cli import main as program
    program(sys.argv[3:], prog_name=sys.argv[2])


if __name__ == "__main__":
    main()
