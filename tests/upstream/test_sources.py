"""Where credentials come from: files that change, helpers and plugins that are run, and all that can be wrong there."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
from pathlib import Path
from textwrap import dedent

import pytest
import trio

from p2pd.upstream import Denied, NodeCredentials, UpstreamConfig, Upstreams, programs, sources
from p2pd.upstream.credentials import BadCredentials, Credentials, IdentityToken, Password
from p2pd.upstream.sources import FILE_SIZE_MAX, HELPER_LIFETIME_S, RECHECK_S, CredentialSource, Places

HOST = "registry.example"


def write(path: Path, password: str, when: int) -> None:
    auth = base64.b64encode(f"alice:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {HOST: {"auth": auth}}}))
    os.utime(path, (when, when))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def own(path: Path, clock: Clock) -> CredentialSource:
    return CredentialSource(UpstreamConfig(HOST, docker_config=path), Places(NodeCredentials(), clock))


def shared(clock: Clock, host: str = HOST, **places: object) -> CredentialSource:
    return CredentialSource(UpstreamConfig(host), Places(NodeCredentials(**places), clock, {}))  # type: ignore[arg-type]


# -- files -------------------------------------------------------------------------------------------------------------


async def test_a_file_that_changes_is_read_again(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "config.json"
    source = own(path, clock)
    assert source.configured
    write(path, "one", 1)
    assert await source.current("a/b") == Password("alice", "one")
    write(path, "two", 2)
    clock.now = RECHECK_S - 1
    assert await source.current("a/b") == Password("alice", "one")
    clock.now = RECHECK_S + 1
    assert await source.current("a/b") == Password("alice", "two")
    path.write_text('{"auths":')
    clock.now += RECHECK_S
    with caplog.at_level(logging.WARNING):
        assert await source.current("a/b") == Password("alice", "two")
    assert "what was read of it before stays in force" in caplog.text
    path.unlink()
    clock.now += RECHECK_S
    assert await source.current("a/b") == Password("alice", "two")


async def test_a_file_that_was_never_good(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "config.json"
    source = own(path, clock)
    with pytest.raises(Denied, match=r"registry\.example: can't read .*config\.json: No such file"):
        await source.current("a/b")
    path.write_bytes(b" " * (FILE_SIZE_MAX + 1))
    with pytest.raises(Denied, match="at most"):
        await source.current("a/b")
    path.write_text("nonsense")
    with pytest.raises(Denied, match="not a docker config"):
        await source.current("a/b")
    write(path, "good", 3)
    assert await source.current("a/b") == Password("alice", "good")


async def test_what_is_said_of_one_registry_goes_first(tmp_path: Path, clock: Clock) -> None:
    common, its = tmp_path / "common", tmp_path / "its"
    write(common, "common", 1)
    write(its, "its", 1)
    places = Places(NodeCredentials(files=(common,)), clock)
    config = UpstreamConfig(HOST, username="bob", password="x", docker_config=its)
    assert await CredentialSource(config, places).current("a/b") == Password("bob", "x")
    config = UpstreamConfig(HOST, docker_config=its)
    assert await CredentialSource(config, places).current("a/b") == Password("alice", "its")
    assert await CredentialSource(UpstreamConfig(HOST), places).current("a/b") == Password("alice", "common")
    assert await CredentialSource(UpstreamConfig("other.example"), places).current("a/b") is None
    assert not CredentialSource(UpstreamConfig(HOST), Places(NodeCredentials(), clock)).configured


async def test_files_are_looked_through_in_their_order_past_broken_ones(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [tmp_path / name for name in ("broken", "empty", "first", "second")]
    paths[0].write_text("secret nonsense")
    paths[1].write_text("{}")
    write(paths[2], "first", 1)
    write(paths[3], "second", 1)
    source = shared(clock, files=tuple(paths))
    for _ in range(3):
        assert await source.current("a/b") == Password("alice", "first")
    assert caplog.text.count("broken is not a docker config.json") == 1
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("name", "value", "path"),
    [
        ("CREDENTIALS_DIRECTORY", "{}", "docker.json"),
        ("REGISTRY_AUTH_FILE", "{}/mine.json", "mine.json"),
        ("XDG_RUNTIME_DIR", "{}", "containers/auth.json"),
        ("HOME", "{}", ".config/containers/auth.json"),
        ("HOME", "{}", ".docker/config.json"),
        ("DOCKER_CONFIG", "{}", "config.json"),
    ],
)
async def test_well_known_places(tmp_path: Path, clock: Clock, name: str, value: str, path: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    write(file, "x", 1)
    environ = {"XDG_RUNTIME_DIR": "/nonexistent", name: value.format(tmp_path)}
    for well_known, found in ((True, Password("alice", "x")), (False, None)):
        places = Places(NodeCredentials(well_known=well_known), clock, environ)
        assert await CredentialSource(UpstreamConfig(HOST), places).current("a/b") == found


# -- programs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return directory


def program(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text("#!/bin/sh\n" + dedent(text))
    path.chmod(0o755)
    return path


def with_helper(tmp_path: Path, clock: Clock, host: str = HOST, **more: object) -> CredentialSource:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"credHelpers": {host: "test"}, **more}))
    return CredentialSource(UpstreamConfig(host, docker_config=path), Places(NodeCredentials(), clock))


@pytest.mark.parametrize(
    ("username", "expected"),
    [("alice", Password("alice", "hidden")), ("<token>", IdentityToken("hidden")), ("", Password("", "hidden"))],
)
async def test_a_helper(tmp_path: Path, bin: Path, clock: Clock, username: str, expected: Credentials) -> None:
    program(
        bin,
        "docker-credential-test",
        f"""
        read server
        echo "$# $1 $server ${{NOTIFY_SOCKET-none}}" >> {tmp_path}/asked
        printf '{{"ServerURL":"%s","Username":"{username}","Secret":"hidden"}}' "$server"
        """,
    )
    source = with_helper(tmp_path, clock)
    results: list[Credentials | None] = []

    async def ask() -> None:
        results.append(await source.current("a/b"))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    clock.now = HELPER_LIFETIME_S - 1
    await ask()
    assert results == [expected] * 6
    assert (tmp_path / "asked").read_text() == f"1 get {HOST} none\n"
    clock.now = HELPER_LIFETIME_S
    await ask()
    assert (tmp_path / "asked").read_text().count("\n") == 2


async def test_a_helper_is_told_docker_hub_s_old_name(tmp_path: Path, bin: Path, clock: Clock) -> None:
    program(bin, "docker-credential-test", """read s; printf '{"Username":"%s","Secret":"x"}' "$s" """)
    found = await with_helper(tmp_path, clock, "docker.io").current("a/b")
    assert found == Password("https://index.docker.io/v1/", "x")


async def test_a_helper_without_an_entry_leaves_it_to_the_file(tmp_path: Path, bin: Path, clock: Clock) -> None:
    program(bin, "docker-credential-test", "echo 'credentials not found in native keychain'; exit 1")
    assert await with_helper(tmp_path, clock).current("a/b") is None
    auths = {HOST: {"username": "alice", "password": "x"}}
    assert await with_helper(tmp_path, clock, auths=auths).current("a/b") == Password("alice", "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo hidden; echo hidden >&2; exit 3", "docker-credential-test ended with status 3 when asked for registry"),
        ("echo hidden", "answered without Username and Secret"),
        ('echo \'{"Username":"u","Secret":""}\'', "answered without Username and Secret"),
        ('printf \'{"Username":"u","Secret":"hidden\\\\n"}\'', "answered without Username and Secret"),
        ("yes hidden", "answered with more than 262144 bytes"),
        ("sleep 60 & sleep 60", "did not answer within 0.5 s"),
        ("exec >&-; exec sleep 60", "did not answer within 0.5 s"),
        (None, r"docker-credential-test is not on p2pd's PATH \("),
    ],
)
async def test_helpers_that_fail(
    tmp_path: Path,
    bin: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    text: str | None,
    message: str,
) -> None:
    monkeypatch.setattr(programs, "PROGRAM_TIMEOUT_S", 0.5)
    if text is not None:
        program(bin, "docker-credential-test", f"echo $$ > {tmp_path}/pid\n{text}")
    source = with_helper(tmp_path, clock)
    with pytest.raises(Denied, match=message) as caught:
        await source.current("a/b")
    assert "hidden" not in str(caught.value) + caplog.text
    if text is not None:
        session = int((tmp_path / "pid").read_text())
        with trio.fail_after(10):  # what was killed takes a moment to go
            while running_in_session(session):  # noqa: ASYNC110 - nothing tells when a stranger's child has gone
                await trio.sleep(0.01)
        (tmp_path / "pid").unlink()
        with pytest.raises(Denied):
            await source.current("a/b")
        assert not (tmp_path / "pid").exists()  # a failure is remembered too, for a short time
    program(bin, "docker-credential-test", """printf '{"Username":"u","Secret":"x"}'""")
    clock.now += RECHECK_S
    assert await source.current("a/b") == Password("u", "x")


def running_in_session(leader: int) -> list[str]:
    """Processes of a session that have not ended."""
    running = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, state, _parent, _group, session, *_ = path.read_text().split(" (", 1)[1].replace(") ", " ", 1).split()
            if int(session) == leader and state not in "ZX":
                running.append(name)
    return running


async def test_a_program_that_hangs_does_not_hold_up_the_loop(tmp_path: Path, bin: Path, clock: Clock) -> None:
    program(bin, "docker-credential-test", "sleep 60")
    source = with_helper(tmp_path, clock)
    with trio.move_on_after(0.2) as scope:
        await source.current("a/b")
    assert scope.cancelled_caught
    assert trio.current_time() - scope.deadline < 1.0


# -- the kubelet's plugins ---------------------------------------------------------------------------------------------

CONFIG = """
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: cloud-provider
    matchImages: ["*.cloud.example", "registry.example:5000/team"]
    defaultCacheDuration: "10m"
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    args: ["--region", "eu"]
    env: [{name: FLAVOUR, value: mild}]
"""
PLUGIN = """
request=$(cat)
echo "$* $FLAVOUR $request" >> {log}
cat <<END
{{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"{key}",
"auth":{{"*.cloud.example":{{"username":"u","password":"all"}},"a.cloud.example/x":{{"username":"u","password":"x"}}}}}}
END
"""


def plugins(tmp_path: Path, bin: Path, clock: Clock, text: str | None, config: str = CONFIG) -> Places:
    path = tmp_path / "providers.yaml"
    path.write_text(config)
    if text is not None:
        program(bin, "cloud-provider", text)
    return Places(NodeCredentials(kubelet_config=path, kubelet_plugins=bin), clock, {})


def asks(places: Places, host: str) -> CredentialSource:
    return CredentialSource(UpstreamConfig(host), places)


@pytest.mark.parametrize(("key", "runs"), [("Image", 3), ("Registry", 2), ("Global", 1)])
async def test_a_plugin(tmp_path: Path, bin: Path, clock: Clock, key: str, runs: int) -> None:
    log = tmp_path / "log"
    places = plugins(tmp_path, bin, clock, PLUGIN.format(log=log, key=key))
    for _ in range(2):
        assert await asks(places, "a.cloud.example").current("x/app") == Password("u", "x")
        assert await asks(places, "a.cloud.example").current("y/app") == Password("u", "all")
        assert await asks(places, "b.cloud.example").current("x/app") == Password("u", "all")
    assert await asks(places, "cloud.example").current("x/app") is None
    assert await asks(places, "a.b.cloud.example").current("x/app") is None
    assert await asks(places, "a.cloud.example:5000").current("x/app") is None
    asked = log.read_text().splitlines()
    assert len(asked) == runs
    assert asked[0].startswith("--region eu mild {")
    assert json.loads(asked[0].split(" ", 3)[3]) == {
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "kind": "CredentialProviderRequest",
        "image": "a.cloud.example/x/app",
    }
    clock.now = 600.0
    await asks(places, "a.cloud.example").current("x/app")
    assert len(log.read_text().splitlines()) == runs + 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("exit 7", "cloud-provider ended with status 7 when asked for a.cloud.example/x/app"),
        ("echo hidden", "something that is not a CredentialProviderResponse"),
        ('echo \'{"kind":"CredentialProviderResponse"}\'', "without a cacheKeyType"),
        (
            'echo \'{"kind":"CredentialProviderResponse","cacheKeyType":"Image","cacheDuration":"soon"}\'',
            "cacheDuration or auth that can't be read",
        ),
        (
            'echo \'{"kind":"CredentialProviderResponse","cacheKeyType":"Image","auth":{"x y":{}}}\'',
            "an entry of auth that can't be read",
        ),
    ],
)
async def test_plugins_that_fail(
    tmp_path: Path, bin: Path, clock: Clock, caplog: pytest.LogCaptureFixture, answer: str, message: str
) -> None:
    """The registry is then asked without credentials: it may want none."""
    places = plugins(tmp_path, bin, clock, answer)
    assert await asks(places, "a.cloud.example").current("x/app") is None
    assert message in caplog.text
    assert "hidden" not in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: CredentialProviderConfig", "kind: Pod", "kind must be CredentialProviderConfig"),
        ("kubelet.config.k8s.io/v1", "v1", "apiVersion must be kubelet.config.k8s.io/v1"),
        ("name: cloud-provider", "name: ../evil", r"providers\[0\].name must be the name of a program"),
        ("name: cloud-provider", "name: other", r"providers\[0\].name 'other': there is no program .*/bin/other"),
        ('"*.cloud.example"', '"a b"', r"providers\[0\].matchImages has 'a b'"),
        ('"10m"', '"soon"', r"providers\[0\].defaultCacheDuration must be a duration"),
        ('["--region", "eu"]', "[1]", r"providers\[0\].args"),
        ("value: mild", "value: 3", r"providers\[0\].env"),
        ("providers:", "providers: []\nothers:", "providers must be a list of 1 to 32"),
        ("kind:", "kind: *x #", "is neither YAML nor JSON"),
        ("kind:", "\tkind:", "line 3: is neither YAML nor JSON"),
    ],
)
def test_configurations_that_are_wrong(
    tmp_path: Path, bin: Path, clock: Clock, old: str, new: str, message: str
) -> None:
    with pytest.raises(BadCredentials, match=message) as caught:
        plugins(tmp_path, bin, clock, "", CONFIG.replace(old, new))
    assert "providers.yaml" in str(caught.value)


def test_a_plugin_that_needs_a_pod_is_passed_over(tmp_path: Path, bin: Path, clock: Clock) -> None:
    config = CONFIG.replace("    args:", "    tokenAttributes: {serviceAccountTokenAudience: x}\n    args:")
    assert not plugins(tmp_path, bin, clock, None, config).any


def test_the_same_configuration_as_json(tmp_path: Path, bin: Path, clock: Clock) -> None:
    import yaml

    assert plugins(tmp_path, bin, clock, "", json.dumps(yaml.safe_load(CONFIG))).any


# -- at start ----------------------------------------------------------------------------------------------------------


def test_a_file_that_can_t_be_used_is_heard_of_at_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "config.json"
    path.write_text("hidden")
    for configs, credentials, key in (
        ({HOST: UpstreamConfig(HOST, docker_config=path)}, None, r'\[upstreams."registry\.example"\] docker_config'),
        ({}, NodeCredentials(files=(path,)), r"\[credentials\] files"),
    ):
        with pytest.raises(ValueError, match=key + r": .*config\.json is not a docker config.json") as caught:
            Upstreams(configs, credentials, on_request=lambda *_: None)
        assert "hidden" not in str(caught.value)
    path.write_text(json.dumps({"credsStore": "of-another-machine"}))
    Upstreams({}, NodeCredentials(files=(path,)), on_request=lambda *_: None)
    assert "docker-credential-of-another-machine is not on p2pd's PATH" in caplog.text
    assert sources.log.name in {record.name for record in caplog.records}
