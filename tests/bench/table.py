"""How benches print: a plain table on standard output, one line for each row, numbers on the right."""

from __future__ import annotations

from collections.abc import Sequence


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints the title, the header and the rows; the first column on the left."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    print(f"\n{title}\n")
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  " + "  ".join(cells))
    print(flush=True)


def verdict(value: float, limit: float) -> str:
    """Whether a figure that should be small is."""
    return "ok" if value <= limit else f"above {limit:g}"
