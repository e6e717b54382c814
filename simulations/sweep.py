"""`p2pd-sim sweep`: a grid over any parameters, each point with several seeds, on all cores.

Every finished run is appended to a file of JSON lines at once, so an interrupted sweep loses nothing that it had
finished, and the same command goes on where it stopped. A run counts as done only for the code that it ran on.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import IO, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import p2pd.swarm
from simulations.checkers import Violation
from simulations.options import SimulationCommand, command_of, scenario_options, texts_of
from simulations.output import PLOT_KINDS, require_matplotlib, require_place
from simulations.reading import build
from simulations.results import figures, simulate
from simulations.scenario import ScenarioError
from simulations.table import print_grid, wide_console

RUNS_MAX = 100_000
SEEDS_MAX = 10_000
WORST = (
    "p50_over_bound", "p99_over_bound", "slowest_over_bound", "upstream_copies", "duplicate_ratio",
    "refused_per_transfer", "cross_zone_copies", "unfinished",
)  # fmt: skip
MODEL = (
    "clock", "faults", "hosts", "network", "pulls", "readers", "records", "results", "scenario", "wires", "world",
)  # fmt: skip
Texts = dict[str, str]
Job = tuple[str, Texts, Texts, str]  # key, point, all parameters, the code's version


def code_version() -> str:
    """Differs when the swarm's or the model's code does."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in [*sorted(Path(p2pd.swarm.__file__).parent.glob("*.py")), *(here / f"{name}.py" for name in MODEL)]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def parse_vary(texts: Iterable[str]) -> dict[str, list[str]]:
    """{"nodes": ["100", "1000"]} of "nodes=100,1000"; values that have commas themselves are set apart by ";"."""
    axes: dict[str, list[str]] = {}
    for text in texts:
        name, sign, values = text.partition("=")
        name = name.strip().replace("-", "_")
        points = [value.strip() for value in values.split(";" if ";" in values else ",")]
        if not sign or not all(points):
            raise ScenarioError("vary", f"{text!r}; allowed: NAME=VALUE,VALUE, as in nodes=100,1000")
        if name in axes:
            raise ScenarioError("vary", f"{name} stands twice")
        if name == "seed":
            raise ScenarioError("vary", "seed; allowed: --seeds 1-5")
        axes[name] = points
    return axes


def parse_seeds(text: str) -> list[int]:
    """ "1-5", "7" or "1,4,9"."""
    seeds: list[int] = []
    try:
        for part in text.split(","):
            low, _, high = part.partition("-")
            last = int(high or low)
            if not 0 <= int(low) <= last or last - int(low) >= SEEDS_MAX:
                raise ValueError
            seeds += range(int(low), last + 1)
    except ValueError:
        raise ScenarioError("seeds", f"{text!r}; allowed: 1-5, 7 or 1,4,9 (at most {SEEDS_MAX})") from None
    return list(dict.fromkeys(seeds))


def plan(base: Mapping[str, str], axes: Mapping[str, Sequence[str]], seeds: Sequence[int]) -> list[tuple[Texts, Texts]]:
    """(point, all parameters) of every run. ScenarioError for the first that can't be."""
    count = len(seeds)
    for points in axes.values():
        count *= len(points)
    if count > RUNS_MAX:
        raise ScenarioError("vary", f"{count} runs; allowed: at most {RUNS_MAX}")
    runs = []
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        build({**base, **point})
        runs += [(point, {**base, **point, "seed": str(seed)}) for seed in seeds]
    return runs


def key_of(texts: Mapping[str, str], code: str) -> str:
    """Names one run: its parameters and its code."""
    return hashlib.sha256(json.dumps([code, sorted(texts.items())]).encode()).hexdigest()[:24]


def read_done(path: Path, code: str) -> dict[str, dict[str, Any]]:
    """What the file has of this code's runs. A last line that was cut off is taken out of the file."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    if not data.endswith(b"\n") and data:
        whole = data[: data.rfind(b"\n") + 1]
        os.truncate(path, len(whole))
        data = whole
    done: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            row = json.loads(line)
            if row["code"] == code:
                done[row["key"]] = row
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            raise click.ClickException(f"{path}, line {number}: not a line of a sweep; name another --out") from None
    return done


def run_one(job: Job) -> dict[str, Any]:
    """In a worker: one run's line. Violation names the command that replays it."""
    key, point, texts, code = job
    try:
        result = figures(simulate(build(texts)))
    except Violation as error:
        raise Violation(f"{error}; replay: {command_of(texts)}") from None
    return {"key": key, "code": code, "point": point, **result}


def _ignore_interrupts() -> None:
    """The parent decides; a worker that is interrupted half-way would only print."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_all(jobs: list[Job], workers: int, out: IO[str], console: Console) -> Iterator[dict[str, Any]]:
    """Every job's line, written and yielded as it is done. BrokenProcessPool if a worker was killed."""
    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(jobs)), spawn, _ignore_interrupts)
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("runs", total=len(jobs))
            for run in as_completed([pool.submit(run_one, job) for job in jobs]):
                row = run.result()
                out.write(json.dumps(row) + "\n")
                out.flush()
                progress.advance(task)
                yield row
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def finish(jobs: list[Job], workers: int, path: Path, console: Console) -> Iterator[dict[str, Any]]:
    """`run_all` into a file that nobody else writes to. click.ClickException."""
    try:
        with path.open("a") as out:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield from run_all(jobs, workers, out, console)
    except BlockingIOError:
        raise click.ClickException(f"{path}: another sweep is writing there; name another --out") from None
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    except Violation as error:
        raise click.ClickException(f"a rule was broken: {error}") from None
    except BrokenProcessPool:
        raise click.ClickException(
            f"a run was killed, perhaps for want of memory: try fewer --jobs; what had ended is in {path}"
        ) from None


def gather(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each point, with the worst of its seeds in each figure, in the points' order of coming."""
    points: dict[str, dict[str, Any]] = {}
    for row in rows:
        entry = points.setdefault(
            json.dumps(row["point"]), {"point": row["point"], "seeds": 0} | dict.fromkeys(WORST, 0)
        )
        entry["seeds"] += 1
        for name in WORST:
            entry[name] = max(entry[name], row[name])
    return list(points.values())


@click.command(cls=SimulationCommand)
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--vary", multiple=True, required=True, metavar="NAME=V,V", help="Its values; also settings.NAME.")
@click.option("--seeds", default="1-3", show_default=True, help="Each point is run with each of them.")
@click.option("--out", default="sweep.jsonl", show_default=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw it there (SVG or PNG).")
@click.option("--jobs", type=click.IntRange(1, 1024), help="Runs at a time.  [default: one for each core]")
@scenario_options
def sweep(
    parameters: Texts,
    file: Path | None,
    vary: tuple[str, ...],
    seeds: str,
    out: Path,
    plot: Path | None,
    jobs: int | None,
) -> None:
    """Simulate a grid: every combination of the varied parameters, with every seed.

    Goes on where an earlier sweep into the same file stopped. Exit code 1 if a node did not end in some run.

    \b
    Examples:
      p2pd-sim sweep --vary nodes=50,100,200,400 --image 1GB/2 --plot nodes.svg
      p2pd-sim sweep --vary "image=50MB;10MB;3GB/2" --vary link=100MB/s,1GB/s --seeds 1-5 --jobs 1
      p2pd-sim sweep scenario.toml --vary stragglers=none,10%:0.1 --vary settings.news_s=0.02,0.1
    """
    require_place("--out", out)
    require_place("--plot", plot, PLOT_KINDS)
    if plot:
        require_matplotlib("--plot")
    try:
        base = texts_of(parameters, file)
        base.pop("seed", None)
        axes = parse_vary(vary)
        runs = plan(base, axes, parse_seeds(seeds))
    except ScenarioError as error:
        raise click.UsageError(str(error)) from None
    code = code_version()
    done = read_done(out, code)
    planned = [(key_of(texts, code), point, texts, code) for point, texts in runs]
    left = [job for job in planned if job[0] not in done]
    console, errors = wide_console(), Console(stderr=True)
    if len(left) < len(planned):
        errors.print(f"{len(planned) - len(left)} of {len(planned)} runs are in {out} already")
    try:
        for row in finish(left, jobs or os.cpu_count() or 1, out, errors) if left else ():
            done[row["key"]] = row
    except KeyboardInterrupt:
        count = sum(1 for job in planned if job[0] in done)
        raise click.ClickException(
            f"interrupted: {count} of {len(planned)} runs are in {out}; the same command goes on from there"
        ) from None
    points = gather(done[job[0]] for job in planned)
    print_grid(console, list(axes), points)
    if plot:
        from simulations.charts import sweep_plot

        sweep_plot(plot, axes, points)
        console.print(f"plot: {plot}")
    if any(point["unfinished"] for point in points):
        raise click.exceptions.Exit(1)
