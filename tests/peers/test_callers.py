"""Who calls too often, and who does not."""

from __future__ import annotations

from p2pd.peers.callers import CALLERS_MAX, CALLS_BURST, CALLS_PER_S, Callers


def calls(callers: Callers, host: str, count: int, now: float) -> int:
    """How many of so many are let through."""
    return sum(callers.may_call(host, now) for _ in range(count))


def test_a_burst_and_then_so_many_a_second() -> None:
    callers = Callers()
    assert calls(callers, "10.0.0.1", 1000, 100.0) == CALLS_BURST
    assert calls(callers, "10.0.0.1", 1000, 101.0) == CALLS_PER_S
    assert calls(callers, "10.0.0.1", 1000, 1000.0) == CALLS_BURST


def test_one_is_not_the_other() -> None:
    callers = Callers()
    assert calls(callers, "10.0.0.1", 1000, 100.0) == calls(callers, "10.0.0.2", 1000, 100.0) == CALLS_BURST


def test_the_addresses_of_one_network_are_one_caller() -> None:
    callers = Callers()
    assert sum(callers.may_call(f"fd00::1:{number:x}", 100.0) for number in range(1000)) == CALLS_BURST
    assert callers.may_call("fd00:0:0:1::1", 100.0)
    assert callers.may_call("fe80::1%eth0", 100.0)
    assert calls(callers, "::ffff:10.0.0.1", 1000, 100.0) == calls(callers, "::ffff:10.0.0.2", 1000, 100.0)


def test_who_is_remembered_is_bounded() -> None:
    callers = Callers()
    for number in range(2 * CALLERS_MAX):
        assert callers.may_call(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 100.0)
    assert len(callers._paid_until) == CALLERS_MAX
