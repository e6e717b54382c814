"""Evidence on disk: what a file holds, that it can be checked again, and that there are never many."""

from __future__ import annotations

import json
import logging
from hashlib import sha256
from pathlib import Path

import pytest
import trio

from p2pd.admin.metrics import Metrics
from p2pd.content.verdicts import FILES_MAX, Verdicts
from p2pd.fleet.keys import NodeKey, verify
from p2pd.swarm.commands import Convict
from p2pd.swarm.evidence import false_link
from p2pd.swarm.messages import Contact, Vouch
from p2pd.swarm.voucher import make_voucher, node_id, voucher_holds
from tests.content.fakes import Threads


def text_of(path: str) -> str:
    return Path(path).read_text()


def files_in(directory: Path) -> list[Path]:
    return sorted(directory.glob("*"))


STATES = (bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32)


def conviction(key: NodeKey, number: int = 0, cases: int = 1, met: bool = True) -> Convict:
    digest = sha256(b"%d" % number).digest()
    voucher = make_voucher(key.sign, key.public, "reg", digest, 9 << 17, 3, 4, STATES)
    contact = Contact(node_id(key.public), "liar", "", "10.0.0.7", 9581) if met else None
    return Convict(voucher, 5, contact, cases)


async def convict(directory: Path, *convictions: Convict) -> Verdicts:
    async with trio.open_nursery() as nursery:
        verdicts = Verdicts(directory, Metrics("1"), nursery)
        verdicts.load()
        for c in convictions:
            verdicts.commands()[Convict](c)
    return verdicts


async def test_a_file_holds_all_that_a_stranger_needs_to_check_it(tmp_path: Path, threads: Threads) -> None:
    key = NodeKey.generate()
    verdicts = await convict(tmp_path, conviction(key))
    [shown] = verdicts.shown()
    assert (shown["name"], shown["address"], shown["index"]) == ("liar", "10.0.0.7:9581", 5)
    record = json.loads(text_of(shown["file"]))
    v = record["voucher"]
    voucher = Vouch(
        bytes.fromhex(v["key"]), v["upstream"], bytes.fromhex(record["digest"][7:]), v["size"], v["term"], v["first"],
        tuple(map(bytes.fromhex, v["states"])), bytes.fromhex(v["signature"]),
    )  # fmt: skip
    assert voucher_holds(voucher, verify)
    assert false_link(voucher, {5: STATES[1], 6: bytes(32)}) == record["index"]
    assert (record["state_before"], record["false_state_after"]) == (STATES[1].hex(), STATES[2].hex())
    assert record["node"] == node_id(key.public).hex()


async def test_it_is_said_and_counted(tmp_path: Path, threads: Threads, caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics("1")
    with caplog.at_level(logging.WARNING, "p2pd"):
        async with trio.open_nursery() as nursery:
            Verdicts(tmp_path, metrics, nursery).commands()[Convict](conviction(NodeKey.generate()))
    assert metrics.value("p2pd_false_links_total") == 1
    assert "node liar" in caplog.text
    assert "signed a false link" in caplog.text


async def test_it_is_shown_after_a_restart(tmp_path: Path, threads: Threads) -> None:
    await convict(tmp_path, conviction(NodeKey.generate(), met=False))
    (tmp_path / "0.json").write_text("not JSON")
    (tmp_path / "1.json").write_text("[]")
    verdicts = await convict(tmp_path)
    [shown] = verdicts.shown()
    assert (shown["name"], shown["address"]) == ("", "")


async def test_there_are_never_many_and_one_signer_pushes_nobody_else_out(tmp_path: Path, threads: Threads) -> None:
    other, liar = NodeKey.generate(), NodeKey.generate()
    flood = [conviction(liar, number) for number in range(1, FILES_MAX + 20)]
    verdicts = await convict(tmp_path, conviction(other), *flood)
    files = files_in(tmp_path)
    assert len(files) == len(verdicts.shown()) == FILES_MAX
    assert any(record["node"] == node_id(other.public).hex() for record in verdicts.shown())


async def test_the_same_case_is_one_file(tmp_path: Path, threads: Threads) -> None:
    key = NodeKey.generate()
    verdicts = await convict(tmp_path, conviction(key), conviction(key))
    assert len(verdicts.shown()) == len(files_in(tmp_path)) == 1


async def test_a_disk_that_takes_nothing_is_no_crash(tmp_path: Path, threads: Threads) -> None:
    (tmp_path / "evidence").write_text("a file where the directory should be")
    verdicts = await convict(tmp_path / "evidence", conviction(NodeKey.generate()))
    assert len(verdicts.shown()) == 1
