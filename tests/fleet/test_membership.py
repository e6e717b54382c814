"""The identity while the node runs: files that change, in whatever order, and an end that comes near."""

from __future__ import annotations

import logging
import os
import random
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pd.fleet import FleetError, Identity, Membership, membership
from tests.fleet.certificates import Authority, key_pem, pem

DAY = 86400.0
CA, NEW = Authority.make("ca", days=500), Authority.make("new", days=500)
NODE = CA.member("node", days=100)


class Changes(list):
    def __call__(self, before: Identity, now: Identity) -> None:
        self.append((before, now))


def watched(directory: Path, **options: object) -> tuple[Membership, Changes]:
    member = Membership(NODE.write(directory), **options)  # type: ignore[arg-type]
    member.on_change = changes = Changes()
    return member, changes


async def looks(member: Membership, times: int = 2) -> None:
    for _ in range(times):
        await member.look()


async def test_nothing_changes_nothing(tmp_path: Path) -> None:
    member, changes = watched(tmp_path)
    before = member.identity
    await looks(member, 5)
    assert member.identity is before
    assert changes == []


async def test_a_renewed_certificate_is_taken_at_the_second_look(tmp_path: Path) -> None:
    member, changes = watched(tmp_path)
    before = member.identity
    renewed = CA.member("node", key=NODE.key, days=200)
    (tmp_path / "new").write_bytes(pem(renewed.certificate))
    os.replace(tmp_path / "new", tmp_path / "node.crt")
    await looks(member, 1)
    assert member.identity is before
    await looks(member, 1)
    assert member.identity.ends_at == renewed.certificate.not_valid_after_utc.timestamp()
    assert changes == [(before, member.identity)]


async def test_a_pair_that_does_not_fit_changes_nothing_until_it_does(tmp_path: Path) -> None:
    member, changes = watched(tmp_path)
    before = member.identity
    other = CA.member("node", days=200)
    (tmp_path / "node.crt").write_bytes(pem(other.certificate))
    await looks(member, 3)
    assert member.identity is before
    (warning,) = member.warnings()
    assert "the old one stays" in warning
    assert "is not the key of" in warning
    (tmp_path / "node.key").write_bytes(key_pem(other.key))
    await looks(member)
    assert member.identity.key.public == other.key.public_key().public_bytes_raw()
    assert member.warnings() == []
    assert len(changes) == 1


async def test_files_in_the_middle_of_being_written_are_not_read(tmp_path: Path) -> None:
    """A bundle of which only the first CA has been written would be a whole one, with less trust."""
    member, changes = watched(tmp_path)
    text = pem(CA.certificate) + pem(NEW.certificate)
    with (tmp_path / "ca.crt").open("wb", buffering=0) as file:
        for start in range(0, len(text), 100):
            file.write(text[start : start + 100])
            await looks(member, 1)
    assert changes == []
    await looks(member)
    assert [span.name for span in member.identity.authorities] == ["CN=ca", "CN=new"]


async def test_a_file_that_is_gone_for_a_while(tmp_path: Path) -> None:
    member, changes = watched(tmp_path)
    (tmp_path / "node.key").rename(tmp_path / "away")
    await looks(member, 3)
    assert "can't be read" in member.warnings()[0]
    (tmp_path / "away").rename(tmp_path / "node.key")
    await looks(member, 3)
    assert member.warnings() == []
    assert len(changes) <= 1


async def test_a_directory_behind_a_symlink_that_is_swapped(tmp_path: Path) -> None:
    """As Kubernetes renews a mounted secret."""
    other = CA.member("node", days=200)
    NODE.write(tmp_path / "one")
    other.write(tmp_path / "two")
    (tmp_path / "data").symlink_to("one")
    member = Membership(membership.FleetFiles(*(tmp_path / "data" / n for n in ("ca.crt", "node.crt", "node.key"))))
    (tmp_path / "next").symlink_to("two")
    os.replace(tmp_path / "next", tmp_path / "data")
    await looks(member)
    assert member.identity.key.public == other.key.public_key().public_bytes_raw()


async def test_any_order_of_writes_ends_at_the_last_pair(tmp_path: Path) -> None:
    dice = random.Random(5)
    member, _ = watched(tmp_path)
    for _ in range(30):
        issued = CA.member("node", days=dice.randint(10, 300))
        parts = [("node.crt", pem(issued.certificate)), ("node.key", key_pem(issued.key))]
        dice.shuffle(parts)
        for name, data in parts:
            (tmp_path / name).write_bytes(data)
            await looks(member, dice.randint(0, 3))
            assert member.identity.key.sign(b"x")  # always a whole one
    await looks(member)
    assert member.identity.key.public == issued.key.public_key().public_bytes_raw()
    assert member.warnings() == []


def test_files_that_are_wrong_at_the_start_are_an_error(tmp_path: Path) -> None:
    files = NODE.write(tmp_path)
    files.key.unlink()
    with pytest.raises(FleetError):
        Membership(files)


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (100 * DAY - 60, None),
        (22 * DAY, None),
        (20.5 * DAY, "ends in 20 days"),
        (1.5 * DAY, "ends in 36 hours"),
        (-60, "ended on"),
    ],
)
def test_the_end_is_announced_weeks_ahead(tmp_path: Path, left: float, words: str | None) -> None:
    ends_at = NODE.certificate.not_valid_after_utc.timestamp()
    member, _ = watched(tmp_path, clock=lambda: ends_at - left)
    assert member.remaining() == pytest.approx(left)
    warnings = [text for text in member.warnings() if "CN=node" in text]
    assert len(warnings) == (1 if words else 0)
    if words:
        assert words in warnings[0]
        assert "must be renewed" in warnings[0]


def test_a_certificate_of_a_day_is_no_reason_for_a_warning_all_day(tmp_path: Path) -> None:
    """What lives for a day is renewed by a program, at two thirds of its life or so."""
    short = CA.member("node", days=1, starts_in=0)
    ends_at = short.certificate.not_valid_after_utc.timestamp()
    now = ends_at - 0.3 * DAY
    member = Membership(short.write(tmp_path), clock=lambda: now)
    assert member.warnings() == []
    now = ends_at - 0.2 * DAY
    assert len(member.warnings()) == 1


def test_a_ca_that_ends_and_one_that_begins_later(tmp_path: Path) -> None:
    member = Membership(NODE.write(tmp_path), clock=lambda: CA.certificate.not_valid_after_utc.timestamp() - 5 * DAY)
    assert any("CN=ca ends in" in text and "must be replaced" in text for text in member.warnings())
    early = CA.member(starts_in=1)
    assert "is valid only from" in Membership(early.write(tmp_path / "early")).warnings()[0]


def test_a_key_that_everybody_can_read(tmp_path: Path) -> None:
    files = NODE.write(tmp_path)
    files.key.chmod(0o644)
    assert "chmod o=" in Membership(files).warnings()[0]


async def test_watching_takes_and_tells_each_thing_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def inline(function, *arguments):
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", inline)  # autojump does not see threads
    ends_at = NODE.certificate.not_valid_after_utc.timestamp()
    member, changes = watched(tmp_path, clock=lambda: ends_at - 10.5 * DAY)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.watch)
        await trio.sleep(60)
        warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert len(warnings) == 1
        renewed = CA.member("node", key=NODE.key, days=99)
        (tmp_path / "node.crt").write_bytes(pem(renewed.certificate))
        await trio.sleep(3 * membership.LOOK_S)
        assert len(changes) == 1
        nursery.cancel_scope.cancel()
