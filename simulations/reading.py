"""Scenarios from what people write: options, TOML files, sizes of images, manifests, OCI layouts.

Each parameter has one kind, for the command line, for files and for sweeps alike. Every error names the parameter.
May know `p2pd.oci`, `p2pd.units` and `scenario`.
"""

from __future__ import annotations

import dataclasses
import json
import random
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from p2pd.oci import INDEX_TYPES, MANIFEST_SIZE_MAX
from p2pd.swarm.settings import Settings
from p2pd.units import parse_duration, parse_rate, parse_size
from simulations.scenario import FOREVER, LAYERS_MAX, Scenario, ScenarioError, Share, Span, unknown

FILE_SIZE_MAX = 1 << 20  # bytes of a scenario
INDEX_DEPTH_MAX = 4  # indexes within indexes; real ones have one or two


# -- kinds: text -> value; ValueError says what is allowed ------------------------------------------------------------


def _rate(text: str) -> float:
    return parse_rate(text) or 0.0


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return parse_duration(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


def _whole(text: str) -> int:
    try:
        return int(text.replace("_", ""))
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def parse_share(text: str) -> float:
    """0.1 of "10%" or "0.1"; what is above all or below nothing is the scenario's to refuse."""
    match = re.fullmatch(r"\s*(-?\d+(?:\.\d+)?)\s*(%?)\s*", text)
    if not match:
        raise ValueError(f"{text!r} is not a share: 0% to 100%, or 0 to 1")
    return float(match[1]) / (100 if match[2] else 1)


def _share_of(amount: Callable[[str], float], form: str) -> Callable[[str], Share | None]:
    def parse(text: str) -> Share | None:
        if text in ("", "none"):
            return None
        parts = text.split(":")
        if len(parts) not in (2, 3):
            raise ValueError(f"{text!r}; allowed: {form}")
        return Share(parse_share(parts[0]), amount(parts[1]), *parts[2:])

    return parse


def _span(text: str) -> Span | None:
    """ "2:6" is from 2 s to 6 s, "2" from 2 s on; ":20%" behind it is the share of the nodes."""
    if text in ("", "none"):
        return None
    parts = text.split(":")
    if len(parts) > 3:
        raise ValueError(f"{text!r}; allowed: start:end or start:end:share, as in 2:6 or 2:6:30%")
    end = _seconds(parts[1]) if len(parts) > 1 and parts[1] else FOREVER
    return Span(_seconds(parts[0]), end, parse_share(parts[2]) if len(parts) > 2 else 0.5)


def _text(text: str) -> str:
    return text


def parse_image(text: str) -> tuple[int, ...]:
    """Layer sizes of "3GB/2" (equal layers), "70MB,50MB", "40x5MB-200MB" (spread at random, the same ones each time),
    "40x20MB", or of a file: a manifest, an index or an OCI layout's directory. ValueError."""
    if Path(text).exists():
        return image_sizes(Path(text))
    sizes: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*x\s*([^-]+?)(?:-([^-]+))?\s*", part)
        if match:
            count, low = int(match[1]), parse_size(match[2])
            high = parse_size(match[3]) if match[3] else low
            if high < low or not 0 < count <= LAYERS_MAX:
                raise ValueError(f"{part!r}; allowed: 1 to {LAYERS_MAX} layers, the smaller size first")
            sizes += _spread(count, low, high)
        elif "/" in part:
            whole, _, count_text = part.partition("/")
            count = _whole(count_text)
            if not 0 < count <= LAYERS_MAX:
                raise ValueError(f"{part!r}; allowed: 1 to {LAYERS_MAX} layers")
            total = parse_size(whole)
            sizes += [total // count + (1 if place < total % count else 0) for place in range(count)]
        else:
            try:
                sizes.append(parse_size(part))
            except ValueError:
                raise ValueError(
                    f"{part!r} is neither a size nor a file; allowed: 3GB/2, 70MB,50MB, 40x5MB-200MB, "
                    "a manifest, or an OCI layout's directory"
                ) from None
    return tuple(sizes)


def _spread(count: int, low: int, high: int) -> list[int]:
    """Sizes evenly spread over their logarithm, as layers are, in an order that is always the same."""
    if count == 1 or low == high:
        return [low] * count
    sizes = [int(low * (high / low) ** (place / (count - 1))) for place in range(count)]
    random.Random(count).shuffle(sizes)
    return sizes


def image_sizes(path: Path) -> tuple[int, ...]:
    """The true sizes of an image's config and layers: of a manifest's file, or of an OCI layout. ValueError."""
    if path.is_dir():
        index = path / "index.json"
        if not index.is_file():
            raise ValueError(f"{path}: no index.json, so it is no OCI layout")
        return _sizes(_load(index), path, INDEX_DEPTH_MAX, str(index))
    return _sizes(_load(path), path.parent, INDEX_DEPTH_MAX, str(path))


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(MANIFEST_SIZE_MAX + 1)
        if len(data) > MANIFEST_SIZE_MAX:
            raise ValueError(f"{path}: above {MANIFEST_SIZE_MAX} bytes, so it is no manifest")
        return json.loads(data)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON: line {error.lineno}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not JSON") from None


def _sizes(document: Any, layout: Path, depth: int, where: str) -> tuple[int, ...]:
    if not isinstance(document, dict):
        raise ValueError(f"{where}: neither a manifest nor an index")
    if isinstance(document.get("layers"), list):
        entries = [document.get("config"), *document["layers"]]
        sizes = [entry.get("size") if isinstance(entry, dict) else None for entry in entries if entry is not None]
        if not all(type(size) is int and size >= 0 for size in sizes):
            raise ValueError(f"{where}: a layer without a size")
        return tuple(size for size in sizes if size)
    manifests = document.get("manifests")
    if not isinstance(manifests, list) or not manifests:
        raise ValueError(f"{where}: neither a manifest nor an index (no layers, no manifests)")
    if depth == 0:
        raise ValueError(f"{where}: indexes within indexes, deeper than {INDEX_DEPTH_MAX}")
    chosen = _choose(manifests, where)
    algorithm, _, value = str(chosen.get("digest", "")).partition(":")
    if not re.fullmatch(r"[a-z0-9]+", algorithm) or not re.fullmatch(r"[0-9a-f]{64,128}", value):
        raise ValueError(f"{where}: an entry without a digest")
    blob = layout / "blobs" / algorithm / value
    if not blob.is_file():
        raise ValueError(f"{where}: an index, and its manifest is not at {blob}; allowed: a manifest, an OCI layout")
    kind = "index" if chosen.get("mediaType") in INDEX_TYPES else "manifest"
    return _sizes(_load(blob), layout, depth - 1, f"{kind} {blob}")


def _choose(manifests: list[Any], where: str) -> dict[str, Any]:
    """linux/amd64 where there is a choice, else the first."""
    entries = [entry for entry in manifests if isinstance(entry, dict)]
    if not entries:
        raise ValueError(f"{where}: an index without entries")
    for entry in entries:
        platform = entry.get("platform")
        if isinstance(platform, dict) and (platform.get("os"), platform.get("architecture")) == ("linux", "amd64"):
            return entry
    return entries[0]


KINDS: dict[str, Callable[[str], Any]] = {
    "nodes": _whole, "image": parse_image, "link": _rate, "up": _rate, "down": _rate, "upstream": _rate,
    "upstream_delay": _seconds, "latency": _seconds, "zones": _whole, "oversubscription": _number,
    "zone_latency": _seconds, "send_buffer": parse_size, "slow_start": _boolean, "unfair": _number,
    "check_rate": _rate, "piece_cost": _seconds, "reader": _boolean, "concurrent": _whole, "hold_back": _seconds,
    "trackers": _whole, "arrival": _seconds, "cached": _share_of(_number, "share:layers, as in 20%:1"),
    "stragglers": _share_of(_number, "share:factor, as in 10%:0.1 (or 10%:0.1:up, :down)"),
    "deaths": parse_share, "silent": _boolean, "restarts": parse_share, "restart_after": _seconds,
    "seeder_death": parse_share, "tracker_loss": _span, "partition": _span,
    "lossy": _share_of(_seconds, "share:seconds between breaks, as in 5%:2s"),
    "lying": _share_of(parse_share, "share:share of wrong pieces, as in 2%:50%"),
    "liars": lambda text: tuple(filter(None, text.split(","))), "upstream_failure": _span,
    "upstream_reason": _text, "seed": _whole, "check": _boolean, "heal_after": _seconds,
    "seconds_most": _seconds, "events_most": _whole,
}  # fmt: skip
SETTINGS = {field.name for field in dataclasses.fields(Settings)}


def build(texts: Mapping[str, str], base: Scenario | None = None) -> Scenario:
    """A scenario from parameters as text; "settings.NAME" is one of the policy's. ScenarioError."""
    values: dict[str, Any] = {}
    settings = dict(base.settings) if base else {}
    for name, text in texts.items():
        name = name.replace("-", "_")
        if name.startswith("settings."):
            settings[name[9:]] = _setting(name, text)
            continue
        if name not in KINDS:
            raise ScenarioError(name, unknown(name, [*KINDS, *(f"settings.{key}" for key in SETTINGS)]))
        try:
            values[name] = KINDS[name](text)
        except ValueError as error:
            raise ScenarioError(name, str(error)) from None
    return (base or Scenario()).but(**values, settings=tuple(sorted(settings.items())))


def _setting(name: str, text: str) -> float | int:
    try:
        number = _number(text)
    except ValueError as error:
        raise ScenarioError(name, str(error)) from None
    return int(number) if number == int(number) and "." not in text else number


def read_file(path: Path) -> dict[str, str]:
    """The parameters in a TOML scenario: top-level keys, and a table [settings]. ScenarioError."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_SIZE_MAX + 1)
        if len(data) > FILE_SIZE_MAX:
            raise ScenarioError(str(path), f"above {FILE_SIZE_MAX} bytes, so it is no scenario")
        content = tomllib.loads(data.decode())
    except OSError as error:
        raise ScenarioError(str(path), error.strerror or str(error)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(str(path), f"not TOML: {error}") from None
    texts: dict[str, str] = {}
    for key, value in content.items():
        if key == "settings" and isinstance(value, dict):
            texts.update({f"settings.{name}": _plain(f"{path}: settings.{name}", v) for name, v in value.items()})
        elif key == "image" and isinstance(value, list):
            texts[key] = ",".join(_plain(f"{path}: image", entry) for entry in value)
        else:
            texts[key] = _plain(f"{path}: {key}", value)
    for key in texts:
        if key.replace("-", "_") not in KINDS and not key.startswith("settings."):
            raise ScenarioError(f"{path}: {key}", unknown(key, [*KINDS, "settings"]))
    return texts


def _plain(where: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float, str)):
        return str(value)
    raise ScenarioError(where, f"{type(value).__name__}; allowed: a text, a number, true or false")
