"""`p2pd hosts install` and `remove`: p2pd put into the configuration of this node's image clients, and taken out."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from p2pd.cli.output import Failure, config_options, overrides
from p2pd.config import Address, Config, load_config
from p2pd.hosts import HostsError, Plan, apply, containerd, containerd_config, containers, difference, docker
from p2pd.hosts.containerd_config import DEFAULT_CERTS_DIR
from p2pd.hosts.distributions import refuse_generated
from p2pd.oci import DOCKER_HUB, BadName, normal_host
from p2pd.upstream.config import UpstreamConfig


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What install and remove share."""
    path = click.Path(path_type=Path)
    for decorate in (
        click.argument("registries", nargs=-1, metavar="[REGISTRY]..."),
        click.option("--dry-run", is_flag=True, help="Show the changes, make none."),
        click.option("--docker-config", type=path, default=docker.DEFAULT_FILE, show_default=True),
        click.option("--containers-dir", type=path, default=containers.DEFAULT_DIRECTORY, show_default=True),
        click.option("--containerd-config", type=path, default=containerd_config.DEFAULT_CONFIG, show_default=True),
        click.option("--certs-dir", type=path, help="containerd's hosts directory, instead of its config_path."),
        click.option("--mirror", metavar="URL", help="The mirror's URL, instead of mirror.listen."),
        click.option(
            "--client",
            type=click.Choice(["containerd", "containers", "docker"]),
            default="containerd",
            show_default=True,
            help="Whose configuration: containers is CRI-O, Podman, Buildah and skopeo.",
        ),
        config_options,
    ):
        function = decorate(function)
    return function


@click.group()
def hosts() -> None:
    """Put p2pd into the configuration of this node's image clients, or take it out."""


@hosts.command()
@_options
@click.option("--no-fallback", is_flag=True, help="Let the client wait for p2pd rather than go upstream by itself.")
def install(no_fallback: bool, **options: Any) -> None:
    """Make p2pd the first mirror of each REGISTRY (default: all that the configuration allows).

    All else in the files stays as it is, a file that was there is copied first, and a second run changes nothing.
    """
    config = _config(options)
    mirror = _mirror(options["mirror"], config)
    registries = _registries(options["registries"], config)
    plan = Plan()
    match options["client"]:
        case "containerd":
            directory = _certs_dir(options, plan, mirror)
            urls = {host: upstream.url for host, upstream in registries.items()}
            _join(plan, containerd.plan_install(directory, urls, mirror, no_fallback=no_fallback))
        case "containers":
            directory = options["containers_dir"]
            _join(plan, containers.plan_install(registries, mirror, directory=directory, no_fallback=no_fallback))
        case "docker":
            if options["registries"] and set(registries) != {DOCKER_HUB}:
                raise Failure("Docker's mirrors serve Docker Hub only: name docker.io, or no registry", 2)
            if no_fallback:
                raise Failure("Docker always falls back to Docker Hub: leave --no-fallback out", 2)
            _join(plan, docker.plan_install(mirror, path=options["docker_config"]))
    _carry_out(plan, dry_run=options["dry_run"], nothing="nothing to change: p2pd is the first mirror already")


@hosts.command()
@_options
def remove(**options: Any) -> None:
    """Take p2pd's lines, and only those, out again, for each REGISTRY (default: wherever they are)."""
    try:
        chosen = frozenset(_host(text) for text in options["registries"]) or None
    except BadName as error:
        raise Failure(str(error), 2) from None
    match options["client"]:
        case "containerd":
            plan = containerd.plan_remove(_certs_dir_to_clean(options), chosen)
        case "containers":
            plan = containers.plan_remove(chosen, directory=options["containers_dir"])
        case _:
            plan = docker.plan_remove(_mirror(options["mirror"], _config(options)), path=options["docker_config"])
    _carry_out(plan, dry_run=options["dry_run"], nothing="nothing to remove: p2pd's lines are nowhere")


def _config(options: dict[str, Any]) -> Config:
    return load_config(options["config_path"], overrides(options["settings"]))


def _mirror(given: str | None, config: Config) -> str:
    """The mirror's URL, without a slash at its end."""
    listen = config.mirror.listen
    local = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}.get(listen.host, listen.host)
    text = given or f"http://{Address(local, listen.port)}"
    try:
        parts = urlsplit(text)
        usable = parts.scheme == "http" and bool(parts.hostname) and bool(parts.port) and parts.path in ("", "/")
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or "@" in parts.netloc or set(text) & set("\"'\\ "):
        raise Failure(f"--mirror {text!r} can't be used: write http://host:port, as in http://127.0.0.1:9580", 2)
    return text.rstrip("/")


def _host(text: str) -> str:
    return normal_host(text.removeprefix("https://").removeprefix("http://").rstrip("/"))


def _registries(names: tuple[str, ...], config: Config) -> dict[str, UpstreamConfig]:
    """The chosen registries, of those that the mirror serves: it would answer 404 for all others."""
    if not names:
        return {host: upstream for host, upstream in config.upstreams.items() if "*" not in host}
    found = {}
    for name in names:
        try:
            host = _host(name)
        except BadName as error:
            raise Failure(f"{error}: write host or host:port", 2) from None
        key = (
            host if host in config.upstreams else next((p for p in config.upstreams if fnmatch.fnmatch(host, p)), None)
        )
        if key is None:
            raise Failure(
                f'p2pd does not serve {host}: add [upstreams."{host}"] to its configuration, restart it, install again'
            )
        upstream = config.upstreams[key]
        found[host] = upstream if key == host else upstream.for_host(host)
    return found


def _certs_dir(options: dict[str, Any], plan: Plan, mirror: str) -> Path:
    """Where containerd looks for hosts.toml files: as it is told, or as it is asked to be told."""
    if options["certs_dir"] is None:
        refuse_generated(mirror)
    found = containerd_config.inspect(options["containerd_config"], options["certs_dir"] or DEFAULT_CERTS_DIR)
    plan.warnings += found.warnings
    given: Path | None = options["certs_dir"]
    if given is not None and found.certs_dir is not None and given.absolute() != found.certs_dir.absolute():
        plan.warnings.append(
            f"containerd's CRI reads {found.certs_dir}, not {given}: only `--hosts-dir {given}` will use it"
        )
    return given or found.certs_dir or DEFAULT_CERTS_DIR


def _certs_dir_to_clean(options: dict[str, Any]) -> Path:
    """The same for remove, which must work too where containerd's own configuration has become useless."""
    if options["certs_dir"] is not None:
        return options["certs_dir"]
    try:
        return containerd_config.inspect(options["containerd_config"]).certs_dir or DEFAULT_CERTS_DIR
    except HostsError:
        return DEFAULT_CERTS_DIR


def _join(plan: Plan, more: Plan) -> None:
    plan.changes += more.changes
    plan.notes += more.notes
    plan.warnings += more.warnings


def _carry_out(plan: Plan, *, dry_run: bool, nothing: str) -> None:
    for warning in plan.warnings:
        click.echo(f"p2pd: warning: {warning}", err=True)
    if not plan.changes:
        click.echo(nothing)
        return
    for change in plan.changes:
        if dry_run:
            click.echo(difference(change), nl=False)
            continue
        backup = apply(change)
        click.echo(f"{change.path}: {change.what}" + (f" (what was there: {backup})" if backup else ""))
    for note in plan.notes:
        click.echo(note)
