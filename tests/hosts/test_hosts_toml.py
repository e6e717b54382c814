"""The text of a hosts.toml: p2pd's lines go in before all other hosts and come out again, and nothing else moves."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.hosts.hosts_toml import BEGIN, BadText, has_mark, install, remove

MIRROR = "http://127.0.0.1:9580"
SERVER = "https://registry-1.docker.io"

OPERATORS = """\
# kept by the platform team
server = "https://registry-1.docker.io"  # the hub
ca = [
  "/etc/a.crt",
  "/etc/b.crt",
]
client = [
["/etc/c.crt", "/etc/c.key"],
]

# the company's cache
[host."https://cache.example"]
  capabilities = ["pull", "resolve"]
  [host."https://cache.example".header]
    x-team = ["platform"]

[host."https://second.example"]
"""


def hosts(text: str) -> list[str]:
    return list(tomllib.loads(text)["host"])


def test_a_new_file():
    text = install("", MIRROR, SERVER, created=True)
    assert tomllib.loads(text) == {
        "server": SERVER,
        "host": {MIRROR: {"capabilities": ["pull", "resolve"], "dial_timeout": "200ms"}},
    }
    assert remove(text) == ""


def test_an_operators_file_keeps_all_and_its_order():
    text = install(OPERATORS, MIRROR, SERVER)
    assert hosts(text) == [MIRROR, "https://cache.example", "https://second.example"]
    head, tail = OPERATORS.split("# the company's cache")
    assert text.startswith(head) and text.endswith("# the company's cache" + tail)
    assert remove(text) == OPERATORS


def test_a_file_without_server_gets_none():
    text = install('[host."https://a.example"]\n', MIRROR, SERVER)
    assert "server" not in tomllib.loads(text)


@pytest.mark.parametrize(
    "text", ["", "# only a comment\n", 'server = "https://x"', OPERATORS, OPERATORS.replace("\n", "\r\n")]
)
@pytest.mark.parametrize("no_fallback", [False, True])
def test_again_changes_nothing_and_removal_brings_back(text: str, no_fallback: bool):
    once = install(text, MIRROR, SERVER, no_fallback=no_fallback)
    assert has_mark(once)
    assert install(once, MIRROR, SERVER, no_fallback=no_fallback) == once
    assert remove(once) in (text, text + "\n")


def test_no_fallback_and_back():
    strict = install(OPERATORS, MIRROR, SERVER, no_fallback=True)
    assert tomllib.loads(strict)["server"] == MIRROR
    assert install(strict, MIRROR, SERVER) == install(OPERATORS, MIRROR, SERVER)
    assert remove(strict) == OPERATORS
    created = install("", MIRROR, SERVER, created=True, no_fallback=True)
    assert tomllib.loads(created)["server"] == MIRROR
    assert install(created, MIRROR, SERVER) == install("", MIRROR, SERVER, created=True)


def test_another_mirror_address_takes_the_old_ones_place():
    text = install(install(OPERATORS, MIRROR, SERVER), "http://127.0.0.1:1580", SERVER)
    assert hosts(text)[0] == "http://127.0.0.1:1580"
    assert MIRROR not in text


def test_later_edits_stay():
    text = install(OPERATORS, MIRROR, SERVER) + '[host."https://third.example"]\n'
    assert remove(text) == OPERATORS + '[host."https://third.example"]\n'


def test_the_mirror_written_by_hand():
    first = f'[host."{MIRROR}"]\n[host."https://a.example"]\n'
    assert install(first, MIRROR, SERVER) == first
    with pytest.raises(BadText, match=r"outside of p2pd's lines: remove"):
        install(f'[host."https://a.example"]\n[host."{MIRROR}"]\n', MIRROR, SERVER)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[host", "is not TOML"),
        ('server = "a"\nserver = "b"\n', "is not TOML"),
        ('host = {"https://a" = {}}\n', "not written as tables"),
        ('host."https://a".capabilities = ["pull"]\n', "not written as tables"),
        (f"{BEGIN}\n[host.a]\n", "stands without"),
    ],
)
def test_refused(text: str, words: str):
    with pytest.raises(BadText, match=words):
        install(text, MIRROR, SERVER)


def test_lines_that_only_look_like_tables():
    text = "ca = '''\n[host.fake]\n'''\nclient = [\n['a']\n]\n[host.'https://a']\n"
    result = install(text, MIRROR, SERVER)
    assert hosts(result) == [MIRROR, "https://a"]
    assert tomllib.loads(result)["ca"] == "[host.fake]\n"
    assert remove(result) == text


pieces = st.sampled_from(
    [
        "# comment\n",
        "\n",
        'server = "https://s"\n',
        "ca = ['/a',\n'/b']\n",
        "skip_verify = true\r\n",
        '[host."https://a"]\n',
        "[host.'https://b']\n  capabilities = ['pull']\n",
        '[host."https://a".header]\n',
        "x = '''\n[host.c]\n'''\n",
        "[[other]]\n",
        "host.z.y = 1\n",
    ]
)


@given(st.lists(pieces, max_size=6).map("".join), st.booleans(), st.booleans())
def test_any_file_is_refused_or_kept(text: str, no_fallback: bool, created: bool):
    try:
        result = install(text, MIRROR, SERVER, no_fallback=no_fallback, created=created)
    except BadText:
        return
    before, after = tomllib.loads(text), tomllib.loads(result)
    assert next(iter(after["host"])) == MIRROR
    assert list(after["host"].items())[1:] == list(before.get("host", {}).items())
    for key in before.keys() - {"host", "server"}:
        assert after[key] == before[key]
    assert remove(result) in (text, text + "\n")
    assert install(result, MIRROR, SERVER, no_fallback=no_fallback) == result
