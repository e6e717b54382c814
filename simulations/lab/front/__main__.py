"""`python -m simulations.lab.front --listen HOST:PORT --registry HOST:PORT --control PATH`: runs until told to end."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from simulations.lab.front.control import Control
from simulations.lab.front.server import Front

# Threads that pass bytes on hold the interpreter for microseconds; the default of 5 ms would add up over 20 of them.
SWITCH_INTERVAL_S = 0.001


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m simulations.lab.front", description=__doc__)
    parser.add_argument("--listen", type=address, required=True)
    parser.add_argument("--registry", type=address, required=True)
    parser.add_argument("--control", type=Path, required=True)
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    front = Front(options.registry, options.listen)
    front.open()
    with Control(options.control, front) as control:
        control.serve_forever()


if __name__ == "__main__":
    main()
