"""What an operator's pattern means, and what it does not."""

from __future__ import annotations

import pytest

from p2pd.patterns import RepositoryPattern


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("registry.example", ["registry.example/a", "registry.example/a/b"], ["registry.example:5000/a"]),
        ("registry.example/team", ["registry.example/team", "registry.example/team/app"], ["registry.example/teams"]),
        (
            "registry.example/team/*",
            ["registry.example/team/a", "registry.example/team/a/b"],
            ["registry.example/team"],
        ),
        ("Registry.Example:5000/*/private", ["registry.example:5000/a/b/private/c"], ["registry.example:5000/private"]),
        ("*.example/x*", ["registry.example/x", "a.b.example/xy/z"], ["example/x", "registryxexample/x"]),
        ("index.docker.io/debian", ["docker.io/library/debian"], ["docker.io/debian/x"]),
        ("docker.io/acme/*", ["docker.io/acme/app"], ["docker.io/library/acme"]),
        ("localhost/a", ["localhost/a"], []),
    ],
)
def test_patterns(pattern: str, matching: list[str], others: list[str]) -> None:
    parsed = RepositoryPattern.parse(pattern)
    for name in matching:
        assert parsed.matches(*name.split("/", 1)), name
    for name in others:
        assert not parsed.matches(*name.split("/", 1)), name


@pytest.mark.parametrize(
    "pattern", ["", "a/b", "registry.example/A", "registry.example/", "https://r.example/x", "r.e/*" * 9]
)
def test_what_is_none(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"is not a pattern of repositories|wildcards"):
        RepositoryPattern.parse(pattern)
