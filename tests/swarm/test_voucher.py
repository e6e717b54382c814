"""What a voucher, a retraction and a tag statement sign: all of it, and nothing that fits another kind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from p2pd.swarm.messages import LINKS_MAX, TagIs, Vouch
from p2pd.swarm.voucher import make_retraction, node_id, retraction_holds, tag_bytes, voucher_holds
from tests.swarm.fakes import digest_of, key, signer, true_states, verify, vouch

BLOB = digest_of("blob")
STATES = true_states(BLOB, 100)
VOUCHER = vouch("a", BLOB, 100 << 17, 3, STATES[3:7])
TAG = TagIs(key("a"), "reg", "library/app", "latest", BLOB, 500, "application/json", 1_700_000_000, b"")


def test_a_voucher_holds() -> None:
    assert voucher_holds(VOUCHER, verify)


@pytest.mark.parametrize(
    "change",
    [
        {"key": key("b")},
        {"upstream": "other"},
        {"digest": digest_of("other")},
        {"size": (100 << 17) - 1},
        {"term": 2},
        {"first": 4},
        {"states": (*STATES[3:6], bytes(32))},
        {"states": tuple(STATES[3:8])},
        {"signature": bytes(64)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_voucher_does_not_hold(change: dict) -> None:
    assert not voucher_holds(replace(VOUCHER, **change), verify)


@pytest.mark.parametrize("count", [0, 1, LINKS_MAX + 2])
def test_a_voucher_covers_one_to_64_links(count: int) -> None:
    assert not voucher_holds(vouch("a", BLOB, 100 << 17, 0, STATES[:count]), verify)


def test_the_most_links() -> None:
    assert voucher_holds(vouch("a", BLOB, 100 << 17, 0, STATES[: LINKS_MAX + 1]), verify)


def test_a_retraction_is_its_signers_own_word() -> None:
    retraction = make_retraction(signer(key("a")), key("a"), BLOB, 3)
    assert retraction_holds(retraction, verify)
    for change in ({"key": key("b")}, {"digest": digest_of("other")}, {"term": 4}, {"signature": bytes(64)}):
        assert not retraction_holds(replace(retraction, **change), verify)


def test_no_statement_passes_for_another_kind() -> None:
    """The same signature under another message: each kind signs its own name first."""
    signed: list[bytes] = []

    def sign(data: bytes) -> bytes:
        signed.append(data)
        return bytes(64)

    make_retraction(sign, key("a"), BLOB, 3)
    vouch_bytes: list[bytes] = []
    voucher_holds(VOUCHER, lambda _key, _signature, data: bool(vouch_bytes.append(data)))
    starts = {data[: data.index(b"\0")] for data in (signed[0], vouch_bytes[0], tag_bytes(TAG))}
    assert len(starts) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"upstream": "x"}, {"repository": "x"}, {"tag": "x"}, {"digest": bytes(32)}, {"size": 1}, {"media_type": "x"},
        {"time": 1},
    ],
)  # fmt: skip
def test_a_tag_statement_covers_all_it_says(change: dict) -> None:
    assert tag_bytes(replace(TAG, **change)) != tag_bytes(TAG)


def test_a_nodes_id_follows_from_its_key() -> None:
    assert len(node_id(key("a"))) == 20
    assert node_id(key("a")) != node_id(key("b"))


def test_the_signature_is_not_asked_for_a_malformed_voucher() -> None:
    def never(*_: bytes) -> bool:
        raise AssertionError

    assert not voucher_holds(Vouch(key("a"), "reg", BLOB, 1, 1, 0, (STATES[0],), b""), never)
