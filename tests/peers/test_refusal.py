"""Who is refused is counted each time, and told once."""

from __future__ import annotations

import logging
import ssl

import pytest
import trio
from trio.testing import MockClock

from p2pd.peers import refusal
from p2pd.peers.refusal import LINES_MAX, LINES_S, QUIET_S, REASONS, REMEMBERED_MAX, Refusals, Refused, refused
from p2pd.peers.transport import ConnectionLost
from p2pd.swarm.messages import ProtocolError

log = logging.getLogger("test.refusal")
FOREIGN = Refused("foreign-certificate", "shows a certificate that no CA of this fleet signed")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_one_line_for_an_address_and_a_reason_in_an_hour(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    counted: list[str] = []
    refusals = Refusals(log, counted.append)
    for _ in range(100):
        refusals.add("10.0.0.1", FOREIGN)
    refusals.add("10.0.0.1", ProtocolError("belongs to another fleet"))
    refusals.add("10.0.0.2", FOREIGN)
    refusals.add("10.0.0.3", ConnectionLost("closed by the other side during the handshake"))
    assert counted == ["foreign-certificate"] * 100 + ["hello", "foreign-certificate", "unfinished"]
    assert len(lines(caplog)) == 3
    assert lines(caplog)[0].startswith("refused 10.0.0.1: shows a certificate that no CA of this fleet signed")
    await trio.sleep(QUIET_S)
    refusals.add("10.0.0.1", FOREIGN)
    assert len(lines(caplog)) == 4


async def test_a_scan_from_many_addresses_fills_neither_log_nor_memory(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    refusals = Refusals(log)
    for number in range(10_000):
        refusals.add(f"10.0.{number // 256}.{number % 256}", FOREIGN)
    assert len(lines(caplog)) == LINES_MAX
    for minute in range(2 * REMEMBERED_MAX // LINES_MAX):
        await trio.sleep(LINES_S)
        for number in range(LINES_MAX):
            refusals.add(f"{minute}-{number}", FOREIGN)
    assert len(refusals._told) == REMEMBERED_MAX


def test_every_word_for_an_error_is_of_the_closed_set() -> None:
    assert set(refusal._BY_REASON.values()) | set(refusal._BY_VERIFY_CODE.values()) <= set(REASONS)
    unknown = refused(ssl.SSLError(1, "something new"))
    assert unknown.reason == "tls"
    assert "something new" in str(unknown)
