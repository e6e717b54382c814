"""`p2pd-sim hunt`: small runs of mixed faults, drawn from seeds, every checker on. Safety first, then all must end.

The seed is the bug report: a failing one is printed with the `rollout` command that replays it.
"""

from __future__ import annotations

import time
from random import Random

import click
from rich.console import Console

from simulations import verdict
from simulations.options import command_of
from simulations.reading import build
from simulations.results import figures, simulate
from simulations.scenario import ScenarioError
from simulations.sweep import parse_seeds

IMAGES = ("3MB", "8MB", "12MB,700KB", "5MB,3MB,300KB", "6x200KB-3MB", "1MB", "400KB,2MB")
LINKS = ("1MB/s", "4MB/s", "10MB/s", "50MB/s")
FAULTS = (
    "stragglers", "deaths", "silent", "restarts", "seeder_death", "tracker_loss", "partition", "lossy", "lying",
    "upstream_failure", "cached", "zones",
)  # fmt: skip
FAULTS_MOST = 4  # in one run
HEAL_AFTER_S = 15
EVENTS_MOST = 600_000  # such a run needs some tens of thousands


def draw(seed: int) -> dict[str, str]:
    """A small scenario with up to four faults, as parameters in text; the same for the same seed."""
    random = Random(seed)
    nodes = random.choice((2, 3, 4, 6, 8, 10, 12, 16))
    texts = {
        "nodes": str(nodes), "image": random.choice(IMAGES), "link": random.choice(LINKS), "seed": str(seed),
        "check": "true", "heal_after": str(HEAL_AFTER_S), "events_most": str(EVENTS_MOST),
        "arrival": random.choice(("0", "0", "0.5", "4")), "trackers": random.choice(("1", "1", "2", "0")),
        "latency": random.choice(("0.0002", "0.001", "0.02")), "upstream": random.choice(LINKS),
        "send_buffer": random.choice(("0", "64KiB", "256KiB", "4MiB")),
    }  # fmt: skip
    bound_s = build(texts).bound_s
    for fault in random.sample(FAULTS, random.randint(1, FAULTS_MOST)):
        texts |= _fault(fault, random, nodes, bound_s)
    return texts


def _fault(fault: str, random: Random, nodes: int, bound_s: float) -> dict[str, str]:
    start = round(0.05 + random.random() * bound_s, 3)
    end = round(start + 0.2 + random.random() * 6, 3)
    match fault:
        case "stragglers":
            share, factor = random.choice((10, 30, 60)), random.choice((0.05, 0.2, 0.5))
            return {fault: f"{share}%:{factor}{random.choice(('', ':up', ':down'))}"}
        case "deaths":
            return {fault: random.choice(("10%", "30%", "60%"))}
        case "silent":
            return {fault: "true", "deaths": "30%"}
        case "restarts":
            return {
                fault: random.choice(("50%", "100%")),
                "deaths": "40%",
                "restart_after": random.choice(("0.3", "3")),
            }
        case "seeder_death":
            return {fault: random.choice(("10%", "50%", "95%"))}
        case "tracker_loss":
            return {fault: random.choice((f"{start}", f"{start}:{end}"))}
        case "partition":
            return {fault: f"{start}:{end}:{random.choice((20, 50))}%"}
        case "lossy":
            return {fault: f"{random.choice((20, 60))}%:{random.choice(('0.3s', '1s', '4s'))}"}
        case "lying":
            return {fault: f"{random.choice((10, 30))}%:{random.choice((5, 50, 100))}%"}
        case "upstream_failure":
            return {fault: f"{start}:{end}", "upstream_reason": random.choice(("unreachable", "limited", "bad-answer"))}
        case "cached":
            return {fault: f"{random.choice((20, 50))}%:1"}
    return {"zones": str(min(nodes, 3)), "oversubscription": "4", "zone_latency": "0.002"}


def try_seed(seed: int, liars: bool = False) -> str:
    """What is wrong with a seed's run; empty if nothing. `liars`: nodes that mean harm, instead of faults."""
    texts = verdict.draw(seed) if liars else draw(seed)
    try:
        world = simulate(build(texts))
        result = figures(world)
    except ScenarioError as error:
        return f"seed {seed} drew a scenario that can't be: {error}"
    except AssertionError as error:  # a checker's, or the core's own
        return f"seed {seed}: {type(error).__name__}: {str(error)[:2000]}\n  {command_of(texts)}"
    except Exception as error:  # our own bug: the seed is worth more than a traceback alone
        error.add_note(f"seed {seed}: {command_of(texts)}")
        raise
    if result["unfinished"]:
        return f"seed {seed}: {result['unfinished']} nodes did not end: {result['problem']}\n  {command_of(texts)}"
    problems = verdict.problems(world) if liars else []
    return f"seed {seed}: {'; '.join(problems)}\n  {command_of(texts)}" if problems else ""


@click.command()
@click.option("--seeds", default="1-100", show_default=True, help="Which: 1-100, 7 or 1,4,9.")
@click.option("--liars", is_flag=True, help="Up to a third of the nodes mean harm, instead of faults.")
def hunt(seeds: str, liars: bool) -> None:
    """Run small rollouts of mixed faults with every check on: for who changes the swarm.

    Faults end after a while, and then every node that lives must get the image. A seed that fails is printed with the
    command that replays it. Exit code 1 if one fails.

    \b
    Example:
      p2pd-sim hunt --seeds 1-1000
    """
    try:
        chosen = parse_seeds(seeds)
    except ScenarioError as error:
        raise click.UsageError(str(error)) from None
    console = Console()
    begun, failed = time.monotonic(), 0
    for seed in chosen:
        problem = try_seed(seed, liars)
        if problem:
            failed += 1
            console.print(problem, soft_wrap=True, markup=False, highlight=False)
    console.print(f"{len(chosen)} seeds in {time.monotonic() - begun:.1f} s: {failed} failed")
    if failed:
        raise click.exceptions.Exit(1)
