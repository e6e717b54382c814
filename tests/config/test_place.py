"""Finding the line of a key in a TOML text."""

from __future__ import annotations

import pytest

from p2pd.config.place import dotted, line_of

TEXT = """\
top = 1
[a]
x = 1
"y z" = "a = b"
b.c = 1
[a.d]  # x = 5
x = 2
'e.f' = {g = 1}
[upstreams."r.example:5000"]
url = '''
x = 3
'''
[[list]]
x = 4
"""


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("top", 1),
        ("a x", 3),
        ("a b c", 5),
        ("a d x", 7),
        ("a d e.f", 8),
        ("a d e.f g", 8),
        ("upstreams r.example:5000 url", 10),
        ("upstreams r.example:5000", 9),
        ("a d missing", 6),
        ("list x", 14),
        ("nowhere", None),
    ],
)
def test_line_of(keys: str, line: int | None):
    assert line_of(TEXT, tuple(keys.split())) == line
    assert line_of(TEXT, ("a", "y z")) == 4


def test_dotted():
    assert dotted(("upstreams", "r.example:5000", "url")) == 'upstreams."r.example:5000".url'
    assert dotted(("a", "")) == 'a.""'
