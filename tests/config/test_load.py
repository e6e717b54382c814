"""What a configuration means, and that every mistake names its file, line, key and value, and what is allowed."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.config import Address, Config, ConfigError, env_name, load_config
from p2pd.config.load import KINDS
from p2pd.upstream.config import WELL_KNOWN, NodeCredentials

Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def call(text: str = "", *overrides: str, **environ: str) -> Config:
        path = tmp_path / "p2pd.toml"
        path.write_text(text)
        return load_config(path, dict(o.split("=", 1) for o in overrides), environ=environ)

    return call


def error_of(load: Load, *args: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*args, **environ)
    return str(caught.value)


def test_defaults():
    config = load_config(None, {}, environ={})
    assert config.node.name and config.node.zone == ""
    assert (config.node.state_dir, config.node.control) == (Path("/var/lib/p2pd"), Path("/run/p2pd/control.sock"))
    mirror, peers = config.mirror, config.peers
    assert (str(mirror.listen), mirror.default_upstream) == ("127.0.0.1:9580", "docker.io")
    assert (mirror.hold_back, mirror.header_wait, mirror.stream, mirror.share_private) == (5.0, 20.0, "vouched", False)
    assert (str(peers.listen), peers.advertise, peers.insecure) == ("0.0.0.0:9581", None, False)
    assert (peers.upload_limit, peers.download_limit) == (None, None)
    assert (config.discovery.trackers, config.discovery.mdns, config.discovery.tags) == ((), True, "node")
    assert (config.store.size_limit, str(config.admin.listen)) == (50_000_000_000, "127.0.0.1:9582")
    assert (config.upstreams, config.warnings) == (dict(WELL_KNOWN), ())


EVERYTHING = """
[node]
name = "rack1-node7"
zone = "rack1"
state_dir = "state"
control = "/tmp/control.sock"
[mirror]
listen = "127.0.0.1:1580"
default_upstream = "registry.example:5000"
hold_back = "250ms"
stream = "proven"
header_wait = "10s"
share_private = false
private = ["registry.example/secret/*"]
[peers]
listen = "[::]:1581"
advertise = "10.0.0.7"
insecure = false
upload_limit = "100MB/s"
download_limit = "200Mbit"
[fleet]
ca = "fleet/ca.crt"
certificate = "/etc/p2pd/node.crt"
key = "${CREDENTIALS_DIRECTORY}/node.key"
[discovery]
trackers = ["tracker1.example", "[fd00::1]:1590", "tracker1.example:9590"]
mdns = false
tags = "fleet"
[store]
size_limit = "1GiB"
[admin]
listen = "10.0.0.7:1582"
[credentials]
files = ["auth.json", "/dev/null"]
well_known = true
kubelet_config = "providers.yaml"
kubelet_plugins = "plugins"
[upstreams."Registry.Example:5000"]
url = "http://10.0.0.1:5000/"
realm_hosts = ["Auth.Example"]
download_limit = "none"
[upstreams.ghcr.io]
proxy = "http://proxy.example:3128"
"""


def test_every_key(load: Load, tmp_path: Path):
    for name in ("auth.json", "providers.yaml"):
        (tmp_path / name).touch()
    config = load(EVERYTHING, CREDENTIALS_DIRECTORY="/run/credentials/p2pd")
    assert config.node.state_dir == tmp_path / "state"
    assert (config.node.name, config.node.zone) == ("rack1-node7", "rack1")
    assert (config.mirror.hold_back, config.mirror.header_wait) == (0.25, 10.0)
    assert (config.mirror.stream, config.mirror.share_private) == ("proven", False)
    assert config.mirror.private[0].matches("registry.example", "secret/a/b")
    assert config.mirror.default_upstream == "registry.example:5000"
    assert (config.peers.listen, config.peers.advertise) == (Address("::", 1581), Address("10.0.0.7", 9581))
    assert (config.peers.upload_limit, config.peers.download_limit) == (100e6, 25e6)
    assert (config.fleet.ca, config.fleet.certificate) == (tmp_path / "fleet/ca.crt", Path("/etc/p2pd/node.crt"))
    assert config.fleet.key == Path("/run/credentials/p2pd/node.key")
    assert config.discovery.trackers == (Address("tracker1.example", 9590), Address("fd00::1", 1590))
    assert (config.discovery.mdns, config.discovery.tags) == (False, "fleet")
    assert config.store.size_limit == 1 << 30
    assert config.credentials == NodeCredentials(
        (tmp_path / "auth.json", Path("/dev/null")), True, tmp_path / "providers.yaml", tmp_path / "plugins"
    )
    assert config.upstreams["registry.example:5000"].url == "http://10.0.0.1:5000"
    assert config.upstreams["registry.example:5000"].realm_hosts == {"auth.example"}
    assert config.upstreams["ghcr.io"].url == WELL_KNOWN["ghcr.io"].url
    assert config.upstreams["ghcr.io"].proxy == "http://proxy.example:3128"
    assert set(config.upstreams) == {*WELL_KNOWN, "registry.example:5000"}


def test_every_key_is_in_the_example():
    document = tomllib.loads(EVERYTHING)
    assert {table: set(keys) for table, keys in KINDS.items()} == {table: set(document[table]) for table in KINDS}


def test_later_wins(load: Load):
    text = '[mirror]\nhold_back = "1s"'
    assert load(text).mirror.hold_back == 1
    assert load(text, P2PD_MIRROR_HOLD_BACK="2s").mirror.hold_back == 2
    assert load(text, "mirror.hold_back=3s", P2PD_MIRROR_HOLD_BACK="2s").mirror.hold_back == 3


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("node.zone", "rack1", "rack1"),
        ("node.control", "/run/x.sock", Path("/run/x.sock")),
        ("mirror.listen", "127.0.0.1:0", Address("127.0.0.1", 0)),
        ("mirror.share_private", "true", True),
        ("peers.advertise", "::1", Address("::1", 9581)),
        ("peers.advertise", "none", None),
        ("peers.upload_limit", "1MB/s", 1e6),
        ("discovery.trackers", "a:1, b", (Address("a", 1), Address("b", 9590))),
        ("discovery.trackers", "", ()),
        ("discovery.mdns", "FALSE", False),
        ("store.size_limit", "2000000", 2_000_000),
    ],
)
def test_text_forms(load: Load, key: str, text: str, value: object):
    table, name = key.split(".")
    assert getattr(getattr(load("", f"{key}={text}"), table), name) == value
    assert getattr(getattr(load("", **{env_name(table, name): text}), table), name) == value


def test_overrides_of_upstreams(load: Load):
    config = load("", 'upstreams."r.example:5000".url=http://127.0.0.1:1', "upstreams.quay.io.download_limit=1MB/s")
    assert config.upstreams["r.example:5000"].url == "http://127.0.0.1:1"
    assert config.upstreams["quay.io"].download_limit == 1e6


def test_an_empty_table_allows_a_registry(load: Load):
    assert load('[upstreams."r.example"]').upstreams["r.example"].url == "https://r.example"
    assert load("[upstreams.r.example]").upstreams["r.example"].url == "https://r.example"


def test_docker_hub_has_one_name(load: Load):
    config = load('[upstreams."index.docker.io"]\ndownload_limit = "1MB/s"')
    assert config.upstreams["docker.io"].download_limit == 1e6
    assert "index.docker.io" not in config.upstreams


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[mirror]\n\nlisten = 5", 3, ["mirror.listen", "5", "in quotes"]),
        ('[mirror]\nlisten = "a b:1"', 2, ["mirror.listen", "'a b:1'", "host:port"]),
        ('[mirror]\nlisten = "127.0.0.1:70000"', 2, ["70000", "1 to 65535"]),
        ('[mirror]\nlisten = "[1.2.3.4]:1"', 2, ["[1.2.3.4]:1"]),
        ('[peers]\nadvertise = "0.0.0.0:1"', 2, ["peers.advertise", "nobody can dial"]),
        ('[peers]\nadvertise = "a:0"', 2, ["'a:0'", "1 to 65535"]),
        ('[peers]\nlisten = "1.2.3.4:9580"', 2, ["peers.listen", "9580", "mirror.listen"]),
        ('[miror]\nlisten = ""', 2, ["'miror'", "did you mean 'mirror'", "upstreams"]),
        ('# x\nlisten = "a"', 2, ["'listen'", "must stand in a table"]),
        ("mirror = 5", 1, ["mirror", "[mirror]"]),
        ("[mirror]\nlissten = 1", 2, ["'lissten'", "did you mean 'listen'", "share_private"]),
        ("[mirror]\nlisten.x = 1", 2, ["'listen.x'"]),
        ('[mirror]\nhold_back = "29s"', 2, ["mirror.hold_back", "'29s'", "from 0s to 28s"]),
        ('[mirror]\nheader_wait = "2s"\nhold_back = "3s"', 3, ["hold_back", "3s", "header_wait (2s)"]),
        ("[mirror]\nhold_back = 5", 2, ["5", '"5s"']),
        ('[mirror]\nhold_back = "5"', 2, ["'5'", "ms, s, m"]),
        ('[mirror]\nstream = "fast"', 2, ["'fast'", '"vouched", "proven"']),
        ('[mirror]\nshare_private = "true"', 2, ["'true'", "true or false"]),
        ("mirror = {share_private = 1}", 1, ["mirror.share_private", "1"]),
        ('[mirror]\nprivate = "r.example/x"', 2, ["'r.example/x'", "not a list"]),
        ('[mirror]\nprivate = ["secret/*"]', 2, ["'secret/*'", "host/name", "registry.example/secret/*"]),
        ('[mirror]\nprivate = ["r.example/a b"]', 2, ["'r.example/a b'", "not a pattern"]),
        ('[mirror]\nprivate = ["r.example/*********"]', 2, ["more than 8 wildcards"]),
        ('[mirror]\nprivate = ["r.example"]\nshare_private = true', 2, ["mirror.private", "contradicts", "remove one"]),
        ('[credentials]\nfiles = ["/nowhere/auth.json"]', 2, ["'/nowhere/auth.json' can't be read", "No such file"]),
        ('[credentials]\nfiles = "x"', 2, ["'x'", "not a list"]),
        ('[credentials]\nkubelet_plugins = "/x"', 2, ["credentials.kubelet_config is missing"]),
        ('[credentials]\nkubelet_config = "/dev/null"', 2, ["credentials.kubelet_plugins is missing"]),
        ('[credentials]\nfiles = ["${CREDENTIALS_DIRECTORY}/x"]', 2, ["CREDENTIALS_DIRECTORY", "LoadCredential="]),
        ('[upstreams.r]\nrealm_hosts = ["https://auth.example"]', 2, ["'https://auth.example'", "its name alone"]),
        ('[mirror]\ndefault_upstream = "r.example"', 2, ["'r.example'", '[upstreams."r.example"]', "docker.io"]),
        ('[mirror]\ndefault_upstream = "https://r"', 2, ["'https://r'"]),
        ('[peers]\nupload_limit = "5"', 2, ["'5'", "MB/s"]),
        ('[peers]\nupload_limit = "' + "9" * 400 + 'MB/s"', 2, ["at most 32 characters"]),
        ('[discovery]\ntrackers = "a:1"', 2, ["'a:1'", "not a list"]),
        ('[discovery]\ntrackers = [\n  "a:1",\n  5]', 2, ["discovery.trackers", "5"]),
        ("[discovery]\ntrackers = " + str([f"t{n}" for n in range(17)]), 2, ["17 trackers", "at most 16"]),
        ("[store]\nsize_limit = true", 2, ["true", '"50GB"']),
        ("[store]\nsize_limit = 5", 2, ["5 bytes", "1000000"]),
        ('[node]\nname = "a/b"', 2, ["'a/b'", "letters, digits"]),
        ('[node]\nname = ""', 2, ["''"]),
        ('[node]\ncontrol = "/' + "x" * 120 + '"', 2, ["too long for a socket", "107"]),
        ('[upstreams."https://r"]\nproxy = ""', 2, ["'https://r'", "without https://"]),
        ('[upstreams.r]\nurl = "ftp://r"', 2, ["upstreams.r.url", "'ftp://r'", "https://host"]),
        ('[upstreams.r]\nurll = "r"', 2, ["'urll'", "did you mean 'url'", "password_file"]),
        ('[upstreams.r]\nusername = "u"', 2, ["password_file is missing"]),
        ('[upstreams.r]\npassword = "p"', 2, ["'password'", "password_file"]),
        ('[upstreams.r]\nca = "/nonexistent"', 2, ["upstreams.r.ca", "'/nonexistent'", "No such file"]),
        ("[upstreams]\nr = 1", 2, ["upstreams.r"]),
        ("[[upstreams]]\nr = 1", 1, ["upstreams", "table of registries"]),
        ('[fleet]\nca = "/a"', 2, ["fleet.ca", "certificate and key missing"]),
        ('[fleet]\nca = "/a"\nkey = "/b"', 2, ["fleet.ca", "certificate missing"]),
        (
            '[fleet]\nca = "/a"\ncertificate = "/b"\nkey = "/c"\n[peers]\ninsecure = true',
            6,
            ["peers.insecure", "together with [fleet]"],
        ),
        ("[mirror]\n[mirror]", None, ["is not TOML", "line 2"]),
        ('[mirror]\nlisten = "a', None, ["is not TOML", "Unterminated string"]),
    ],
)
def test_a_mistake_is_named(load: Load, tmp_path: Path, text: str, line: int | None, words: list[str]):
    message = error_of(load, text)
    assert message.startswith(f"{tmp_path}/p2pd.toml: " + (f"line {line}, " if line else "")), message
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("mirror.listen=", ["--set mirror.listen", "''"]),
        ("mirror.lissten=1", ["--set mirror.lissten", "did you mean 'listen'"]),
        ("mirror=1", ["--set mirror", "[mirror]"]),
        ("m m=1", ["--set m m=1", "TABLE.KEY=VALUE"]),
        ("=1", ["TABLE.KEY=VALUE"]),
        ("a b\n=1", ["TABLE.KEY=VALUE"]),
        ("upstreams.r.urll=x", ["'urll'"]),
        ("peers.insecure=1", ["'1'", "true or false"]),
    ],
)
def test_a_wrong_override_is_named(load: Load, override: str, words: list[str]):
    message = error_of(load, "", override)
    for word in words:
        assert word in message


def test_a_wrong_variable_is_named(load: Load):
    message = error_of(load, "", P2PD_STORE_SIZE_LIMIT="big")
    assert message.startswith("environment variable P2PD_STORE_SIZE_LIMIT (store.size_limit): 'big' is not a size")


def test_an_unknown_variable_is_a_warning(load: Load):
    """Kubernetes sets such names for each service: they must not stop a node."""
    config = load("", P2PD_MIRROR_LISTN="x", P2PD_PORT="tcp://10.0.0.1:80", OTHER="1")
    assert config.warnings == (
        "environment variable P2PD_MIRROR_LISTN is not a setting of p2pd (did you mean 'P2PD_MIRROR_LISTEN'?)",
    )


def test_files_that_can_not_be_read(tmp_path: Path):
    for path, words in ((tmp_path / "none", "no such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=words):
            load_config(path, {}, environ={})
    (tmp_path / "latin").write_bytes(b"# \xe9")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(tmp_path / "latin", {}, environ={})
    (tmp_path / "big").write_bytes(b"#" * (1 << 21))
    with pytest.raises(ConfigError, match="larger than"):
        load_config(tmp_path / "big", {}, environ={})


def test_password_file(load: Load, tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    secret.chmod(0o600)
    text = '[upstreams.r]\nusername = "u"\npassword_file = "secret"'
    config = load(text)
    assert (config.upstreams["r"].password, config.warnings) == ("hunter2", ())
    assert "hunter2" not in repr(config)
    secret.chmod(0o644)
    assert "readable by everyone" in load(text).warnings[0]
    unencrypted = load(text + '\nurl = "http://r"').warnings
    assert [w for w in unencrypted if "unencrypted" in w]
    for content in ("", "\n", "a\nb\n", "x" * 70_000):
        secret.write_text(content)
        message = error_of(load, text)
        assert "one line with the password" in message and "secret'" in message
    secret.unlink()
    assert "secret' can't be read: No such file" in error_of(load, text)


def test_credentials_directory(load: Load, tmp_path: Path):
    (tmp_path / "docker.json").write_text("{}")
    text = '[upstreams.r]\ndocker_config = "${CREDENTIALS_DIRECTORY}/docker.json"'
    config = load(text, CREDENTIALS_DIRECTORY=str(tmp_path))
    assert config.upstreams["r"].docker_config == tmp_path / "docker.json"
    assert "LoadCredential" in error_of(load, text)


def test_a_proxys_password_is_not_shown(load: Load):
    assert "s3cret" not in error_of(load, '[upstreams.r]\nproxy = "ftp://u:s3cret@p"')
    assert load('[upstreams.r]\nproxy = "none"').upstreams["r"].proxy == ""


def test_an_open_mirror_is_warned_about(load: Load):
    assert "not loopback" in load('[mirror]\nlisten = "0.0.0.0:9580"').warnings[0]
    assert load('[mirror]\nlisten = "[::1]:9580"').warnings == ()


def test_a_short_header_wait_shortens_hold_back(load: Load):
    assert load('[mirror]\nheader_wait = "2s"').mirror.hold_back == 2.0


values = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from([(t, k) for t, keys in KINDS.items() for k in keys]), st.text(max_size=40))
def test_any_text_is_a_value_or_an_error(keys: tuple[str, str], text: str):
    try:
        load_config(None, {".".join(keys): text}, environ={})
    except ConfigError as error:
        assert ".".join(keys) in str(error)


@given(st.text(max_size=60))
def test_any_override_key_is_a_key_or_an_error(key: str):
    try:
        load_config(None, {key: "x"}, environ={})
    except ConfigError as error:
        assert "--set" in str(error)


def test_any_value_in_a_file_is_a_value_or_an_error(tmp_path: Path):
    literals = ["1", "-1.5", "nan", "true", "1979-05-27", "[]", "[[1]]", "{}", "{a = 1}", '"x"', '""', "'''a\nb'''"]
    keys = [(t, k) for t, ks in KINDS.items() for k in ks] + [("upstreams", "r"), ("upstreams.r", "url")]
    path = tmp_path / "c.toml"
    for table, key in keys:
        for literal in literals:
            path.write_text(f"[{table}]\n{key} = {literal}\n")
            try:
                load_config(path, {}, environ={})
            except ConfigError as error:
                assert f"{table}.{key}" in str(error) and "line " in str(error)


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("P2PD_NODE_ZONE", "rack9")
    assert load_config(None, {}).node.zone == "rack9"
