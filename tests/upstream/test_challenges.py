"""The WWW-Authenticate parser: what registries send, what nobody should, and that it always ends."""

from __future__ import annotations

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.upstream.challenges import CHALLENGES_MAX, HEADER_LENGTH_MAX, Challenge, parse_challenges

TOKENS = st.text(string.ascii_letters + string.digits + "!#$%&'*+.^_`|~-", min_size=1, max_size=12)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


def parsed(*headers: str) -> list[tuple[str, dict[str, str]]]:
    return [(challenge.scheme, dict(challenge.parameters)) for challenge in parse_challenges(headers)]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            ['Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull"'],
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:a/b:pull",
                    },
                )
            ],
        ),
        (['BEARER Realm="x", SCOPE="a:b:c,d"'], [("bearer", {"realm": "x", "scope": "a:b:c,d"})]),
        (['Basic realm="a, b"', 'Bearer realm="x"'], [("basic", {"realm": "a, b"}), ("bearer", {"realm": "x"})]),
        (['Basic realm="a", Bearer a="x",b="y"'], [("basic", {"realm": "a"}), ("bearer", {"a": "x", "b": "y"})]),
        (["Negotiate YIIaaa==, Basic realm=r"], [("negotiate", {}), ("basic", {"realm": "r"})]),
        (["Negotiate", "Basic"], [("negotiate", {}), ("basic", {})]),
        (['Bearer realm="say \\"hi\\", you"'], [("bearer", {"realm": 'say "hi", you'})]),
        (["Bearer realm=https://a.example/t?x=y,a=b"], [("bearer", {"realm": "https://a.example/t?x=y", "a": "b"})]),
        (['Bearer realm = "x" , service="y"'], [("bearer", {"realm": "x", "service": "y"})]),
        (['Bearer realm="one",realm="two"'], [("bearer", {"realm": "one"})]),
        (['realm="nobody asked"'], []),
        ([",,, ,"], []),
        ([], []),
    ],
)  # fmt: skip
def test_what_registries_send(headers: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parsed(*headers) == expected


@given(
    st.lists(
        st.builds(
            Challenge, TOKENS.map(str.lower), st.dictionaries(TOKENS.map(str.lower), VALUES, min_size=1, max_size=4)
        ),
        max_size=4,
    ),
    st.sampled_from([", ", ",", " , "]),
    st.booleans(),
)
def test_round_trip(challenges: list[Challenge], comma: str, one_header: bool) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    texts = [
        f"{challenge.scheme} " + comma.join(f"{name}={quoted(value)}" for name, value in challenge.parameters.items())
        for challenge in challenges
    ]
    assert parse_challenges([comma.join(texts)] if one_header else texts) == challenges


@given(st.lists(st.text(max_size=200), max_size=4))
def test_any_text_is_survived(headers: list[str]) -> None:
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()


@given(st.text('aB"\\=, \t:/;', max_size=200))
def test_any_text_of_its_own_alphabet_is_survived(header: str) -> None:
    parse_challenges([header])


@pytest.mark.parametrize(
    "header",
    ["a" * HEADER_LENGTH_MAX, 'a="' * 2730, '"' * HEADER_LENGTH_MAX, "a =" * 2730,
     'x="\\' + "\\\\" * 4000, "a a=" * 2048, " " * HEADER_LENGTH_MAX, "a " * 4096],
)  # fmt: skip
def test_the_longest_headers_take_no_time(header: str) -> None:
    began = time.process_time()
    assert len(parse_challenges([header])) <= CHALLENGES_MAX
    assert time.process_time() - began < 0.5


def test_a_longer_header_is_not_read() -> None:
    assert parsed('Basic realm="' + "a" * HEADER_LENGTH_MAX + '"') == []
