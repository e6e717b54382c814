"""The copy that is compiled: the same dataclasses, with an `__init__` that can be."""

from __future__ import annotations

from typing import Any

from simulations.compile import with_plain_inits

SOURCE = '''
from __future__ import annotations
from dataclasses import dataclass, field

@dataclass(frozen=True, slots=True)
class Message:
    """Words."""

    number: int
    text: str = "none"

@dataclass(slots=True)
class State:
    now: float
    peers: dict[int, Message] = field(default_factory=dict)
    names: list[str] = field(default_factory=lambda: ["first"])  # with a remark

    def later(self) -> float:
        return self.now + 1

@dataclass
class Own:
    size: int

    def __init__(self) -> None:
        self.size = 7
'''


def run(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": __name__}
    exec(compile(source, "copy", "exec"), names)
    return names


def test_a_dataclass_with_its_own_init_is_made_and_compared_as_before() -> None:
    text = with_plain_inits(SOURCE)
    before, after = run(SOURCE), run(text)
    assert text.count("def __init__") == 3
    for names in (before, after):
        message, state, other = names["Message"](3), names["State"](1.0), names["State"](1.0, names=["x"])
        assert (message.number, message.text) == (3, "none")
        assert message == names["Message"](3) != names["Message"](3, "some")
        assert {message: 1}[names["Message"](3)] == 1
        assert state.peers == {} and state.peers is not other.peers
        assert (state.names, other.names, state.later(), names["Own"]().size) == (["first"], ["x"], 2.0, 7)
        assert repr(message).endswith("Message(number=3, text='none')")


def test_what_is_not_a_dataclass_stays_as_it_is() -> None:
    plain = 'class A:\n    x: int = 3\n\n\nclass B(A):\n    """Words."""\n'
    assert with_plain_inits(plain) == plain
