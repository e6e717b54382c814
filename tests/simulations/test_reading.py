"""What people write: sizes, shares, spans, manifests, files. Bad input is an error that names the parameter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2pd.swarm.settings import Settings
from simulations.reading import KINDS, build, parse_image, parse_share, read_file
from simulations.scenario import FOREVER, Scenario, ScenarioError, Share, Span

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("3GB/2", (1_500_000_000, 1_500_000_000)),
        ("10B/3", (4, 3, 3)),
        ("70MB,50MB", (70_000_000, 50_000_000)),
        ("3x5MB", (5_000_000,) * 3),
        ("1MiB", (1_048_576,)),
        ("2x1MB,5MB", (1_000_000, 1_000_000, 5_000_000)),
    ],
)
def test_image_sizes(text: str, sizes: tuple[int, ...]) -> None:
    assert parse_image(text) == sizes


def test_a_spread_of_layers_is_between_its_ends_and_always_the_same() -> None:
    sizes = parse_image("40x5MB-200MB")
    assert len(sizes) == 40
    assert (min(sizes), max(sizes)) == (5_000_000, pytest.approx(200_000_000, abs=1))
    assert sizes == parse_image("40x5MB-200MB") != tuple(sorted(sizes))


@pytest.mark.parametrize("text", ["", "big", "3GB/0", "3GB/x", "0x5MB", "9999x5MB", "3x9MB-5MB", "3GB/2/2"])
def test_a_bad_image_is_named(text: str) -> None:
    with pytest.raises(ScenarioError, match=r"^image: "):
        build({"image": text})


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), ("0.25", 0.25), ("100%", 1.0), ("0%", 0.0)])
def test_shares(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


def test_every_kind_of_parameter() -> None:
    scenario = build(
        {
            "nodes": "2600", "link": "25Mbit", "stragglers": "10%:0.1:up", "deaths": "5%", "arrival": "30s",
            "tracker_loss": "2", "partition": "2:6:30%", "lossy": "5%:500ms", "settings.news_s": "0.02",
            "settings.places": "2", "slow-start": "true", "send_buffer": "64KiB", "latency": "0.25ms",
        }
    )  # fmt: skip
    assert scenario.nodes == 2600
    assert scenario.link == pytest.approx(3.125e6)
    assert scenario.stragglers == Share(0.1, 0.1, "up")
    assert scenario.arrival == 30.0
    assert scenario.tracker_loss == Span(2.0, FOREVER, 0.5)
    assert scenario.partition == Span(2.0, 6.0, 0.3)
    assert scenario.lossy == Share(0.05, 0.5)
    assert scenario.policy == Settings(news_s=0.02, places=2)
    assert scenario.slow_start
    assert scenario.latency == pytest.approx(0.00025)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("nodes", "0", "allowed: 1 to"),
        ("nodes", "-5", "allowed: 1 to"),
        ("nodes", "many", "not a whole number"),
        ("link", "0MB/s", "above 0"),
        ("link", "none", "above 0"),
        ("upstream", "fast", "not a rate"),
        ("stragglers", "300%:0.1", "0% to 100%"),
        ("stragglers", "10%:0", "above 0"),
        ("stragglers", "10%:2", "at most 1"),
        ("stragglers", "10%", "share:factor"),
        ("stragglers", "10%:0.5:sideways", "both, up or down"),
        ("deaths", "100%", "nobody is left"),
        ("deaths", "-1%", "0% to 100%"),
        ("deaths", "a few", "not a share"),
        ("zones", "101", "allowed: 1 to 100"),
        ("oversubscription", "0.5", "allowed: 1 to"),
        ("latency", "-1", "allowed: 0 to"),
        ("cached", "20%:3", "allowed: 0 to 2"),
        ("partition", "2", "never ends"),
        ("partition", "6:2", "an end after its start"),
        ("upstream_failure", "1", "never ends"),
        ("upstream_reason", "sulking", "unreachable"),
        ("lossy", "5%:0s", "0.05 to"),
        ("lying", "5%:200%", "0% to 100%"),
        ("check", "perhaps", "neither true nor false"),
        ("trackers", "9", "0 to 8"),
        ("concurrent", "0", "1 to"),
        ("nodse", "5", "did you mean 'nodes'"),
        ("settings.newss", "5", "did you mean 'news_s'"),
        ("settings.places", "1.5", "a whole number"),
        ("settings.places", "few", "not a number"),
        ("settings.news_s", "-1", "allowed: 0 to"),
    ],
)  # fmt: skip
def test_an_impossible_value_is_an_error_that_names_it(name: str, text: str, says: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        build({name: text})
    assert str(caught.value).startswith(name)
    assert says in str(caught.value)


def test_no_directory_is_for_small_fleets() -> None:
    with pytest.raises(ScenarioError, match=r"^trackers: .*256"):
        build({"trackers": "0", "nodes": "257"})


def test_every_parameter_of_a_scenario_can_be_written() -> None:
    fields = set(Scenario.__dataclass_fields__) - {"settings"}
    assert fields == set(KINDS)


def test_what_is_not_said_is_as_before() -> None:
    base = build({"nodes": "7", "settings.places": "2"})
    changed = build({"link": "10MB/s", "settings.news_s": "1"}, base)
    assert (changed.nodes, changed.link, changed.policy) == (7, 10e6, Settings(places=2, news_s=1))


# -- files ----------------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_scenario_file(tmp_path: Path) -> None:
    text = 'nodes = 50\nimage = ["70MB", "50MB"]\nsilent = true\ndeaths = 0.1\nup = "1MB/s"\n[settings]\nnews_s = 0.1\n'
    scenario = build(read_file(write(tmp_path / "s.toml", text)))
    assert scenario == Scenario(
        nodes=50, image=(70_000_000, 50_000_000), silent=True, deaths=0.1, up=1e6, settings=(("news_s", 0.1),)
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nodes = ", "not TOML"),
        ("nodse = 5", "did you mean 'nodes'"),
        ("nodes = [1, 2]", "allowed: a text, a number"),
        ("[nodes]\na = 1", "allowed: a text, a number"),
        ("image = [[1]]", "allowed: a text, a number"),
    ],
)
def test_a_bad_scenario_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path / "s.toml", text)
    with pytest.raises(ScenarioError) as caught:
        read_file(path)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="No such file"):
        read_file(tmp_path / "none.toml")


def manifest(*sizes: int) -> str:
    layers = [{"mediaType": "l", "digest": f"sha256:{n:064x}", "size": size} for n, size in enumerate(sizes)]
    return json.dumps(
        {"mediaType": MANIFEST, "config": {"size": 1234, "digest": "sha256:" + "0" * 64}, "layers": layers}
    )


def test_a_manifest_has_the_true_sizes(tmp_path: Path) -> None:
    path = write(tmp_path / "manifest.json", manifest(5_000_000, 70_000_000))
    assert parse_image(str(path)) == (1234, 5_000_000, 70_000_000)


def layout(folder: Path, *, platforms: bool = True) -> Path:
    """An OCI layout: an index of two platforms inside the index."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    entries = []
    for number, (architecture, size) in enumerate((("arm64", 1_000_000), ("amd64", 2_000_000)), start=1):
        digest = f"{number:064x}"
        (blobs / digest).write_text(manifest(size))
        entry = {"mediaType": MANIFEST, "digest": f"sha256:{digest}", "size": 1}
        entries.append(entry | {"platform": {"os": "linux", "architecture": architecture}} if platforms else entry)
    inner = f"{9:064x}"
    (blobs / inner).write_text(json.dumps({"manifests": entries}))
    kind = "application/vnd.oci.image.index.v1+json"
    outer = {"manifests": [{"mediaType": kind, "digest": f"sha256:{inner}", "size": 1}]}
    (folder / "index.json").write_text(json.dumps(outer))
    return folder


def test_an_oci_layout_has_the_true_sizes(tmp_path: Path) -> None:
    assert parse_image(str(layout(tmp_path / "a"))) == (1234, 2_000_000)
    assert parse_image(str(layout(tmp_path / "b", platforms=False))) == (1234, 1_000_000)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "not JSON"),
        ("[]", "neither a manifest nor an index"),
        ("{}", "no layers, no manifests"),
        ('{"layers": [{"size": "5"}]}', "a layer without a size"),
        ('{"layers": [{"size": -5}]}', "a layer without a size"),
        ('{"layers": [5]}', "a layer without a size"),
        ('{"manifests": [5]}', "without entries"),
        ('{"manifests": [{"digest": "sha256:../../etc"}]}', "without a digest"),
        ('{"manifests": [{"digest": "sha256:' + "a" * 64 + '"}]}', "not at"),
        ('{"layers": []}', "no layer"),
    ],
)
def test_a_bad_manifest_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path / "m.json", text)
    with pytest.raises(ScenarioError) as caught:
        build({"image": str(path)})
    assert says in str(caught.value)


def test_a_folder_without_an_index_is_no_layout(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="no OCI layout"):
        build({"image": str(tmp_path)})


def test_an_index_of_itself_ends(tmp_path: Path) -> None:
    digest = "a" * 64
    text = json.dumps({"manifests": [{"digest": f"sha256:{digest}"}]})
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    write(tmp_path / "blobs" / "sha256" / digest, text)
    write(tmp_path / "index.json", text)
    with pytest.raises(ScenarioError, match="indexes within indexes"):
        build({"image": str(tmp_path)})
