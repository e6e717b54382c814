"""TOML in any shape: a document or NotToml."""

from __future__ import annotations

import pytest

from p2pd.toml import DEPTH_MAX, NotToml, parse


def test_a_document() -> None:
    assert parse('a.b = 1\n[c]\nd = ["x"]\n') == {"a": {"b": 1}, "c": {"d": ["x"]}}
    assert parse("") == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = ", "Invalid value"),
        ("a = " + "9" * 5000, "4300 digits"),
        ("a = " + "[" * 3000, f"more than {DEPTH_MAX} deep"),
        ("a." * DEPTH_MAX + "a = 1", f"more than {DEPTH_MAX} deep"),
    ],
)
def test_others(text: str, says: str) -> None:
    with pytest.raises(NotToml, match=says):
        parse(text)


def test_as_deep_as_allowed() -> None:
    assert parse("a." * (DEPTH_MAX - 1) + "a = 1")
