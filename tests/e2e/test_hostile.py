"""Liars among real daemons: named, and no wrong byte to a client. All kinds: `make hostile`."""

from __future__ import annotations

import pytest

from tests.hostile.cases import CASES, problems
from tests.hostile.fleet import Case
from tests.hostile.matrix import try_case
from tests.lab import Warehouse

pytestmark = pytest.mark.e2e

BY_NAME = {case.name: case for case in CASES}


@pytest.mark.parametrize("case", [BY_NAME["flips bits"], BY_NAME["forges a run"]], ids=lambda case: case.name)
def test_a_liar_is_named_and_nobody_suffers(warehouse: Warehouse, case: Case) -> None:
    outcome = try_case(warehouse, case)
    assert problems(outcome) == []
    assert all(seen.right and not seen.was_cut for seen in outcome.seen)
    assert "liar1" in outcome.convicted or outcome.named.get("liar1")


def test_a_stream_that_rested_on_a_liar_is_cut_and_not_opened_again(warehouse: Warehouse) -> None:
    """The body ends by FIN before its last byte; who asks for the rest hears 404, and goes upstream."""
    outcome = try_case(warehouse, BY_NAME["streamed: lies as the seeder"])
    assert problems(outcome) == []
    cut = [seen for seen in outcome.seen if seen.was_cut]
    assert cut
    assert [seen.again for seen in cut] == [404] * len(cut)
    assert outcome.refuted_streams >= len([seen for seen in cut if not seen.is_prefix]) > 0
    assert outcome.convicted.get("liar1")


def test_who_streams_only_what_is_proven_sees_no_wrong_byte(warehouse: Warehouse) -> None:
    outcome = try_case(warehouse, BY_NAME["the same, stream = proven"])
    assert problems(outcome) == []
    assert all(seen.is_prefix and seen.right for seen in outcome.seen)
