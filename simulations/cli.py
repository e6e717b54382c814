"""`p2pd-sim`: rollouts in virtual time, sweeps over them, comparisons, and the real daemons beside them."""

from __future__ import annotations

import click

from p2pd import __version__
from simulations.compare import compare
from simulations.fleet import fleet
from simulations.hunt import hunt
from simulations.rollout import rollout
from simulations.sweep import sweep


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="p2pd-sim", message="%(prog)s %(version)s")
def main() -> None:
    """How long a rollout takes, before you do it: the swarm's own code on a model of your network.

    What the model knows and what it hides: docs/simulator.md.
    """


for command in (rollout, compare, sweep, fleet, hunt):
    main.add_command(command)


if __name__ == "__main__":
    main()
