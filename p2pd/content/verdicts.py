"""Evidence against signers of false links: said in the log, counted, shown, and kept as small files.

A file holds the voucher itself, so that whoever has the blob can check it again: no word of this node is needed. May
know p2pd.admin and p2pd.swarm.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from p2pd.admin.metrics import Metrics
from p2pd.swarm import commands as cmd
from p2pd.swarm.voucher import node_id

log = logging.getLogger("p2pd")

FILES_MAX = 64  # about 6 KiB each, so 0.4 MiB; the signer with the most of them loses its oldest
FILE_SIZE_MAX = 64 * 1024  # bytes of a file that is read back: ours are a tenth of it

Record = dict[str, Any]


class Verdicts:
    """What this node has proved against signers, from earlier runs too. `keep` runs in a worker thread."""

    def __init__(self, directory: Path, metrics: Metrics, nursery: trio.Nursery) -> None:
        self._directory = directory
        self._metrics = metrics
        self._nursery = nursery
        self._one_at_a_time = trio.CapacityLimiter(1)
        self._records: list[tuple[Path, Record]] = []  # oldest first

    def commands(self) -> dict[type, Callable]:
        return {cmd.Convict: self._convict}

    def load(self) -> None:
        """What is kept from earlier runs. Files that are not ours are passed over."""
        found = []
        for path in sorted(self._directory.glob("*.json")) if self._directory.is_dir() else []:
            try:
                if path.stat().st_size <= FILE_SIZE_MAX:
                    record = json.loads(path.read_text())
                    if isinstance(record, dict) and isinstance(record.get("at"), int):
                        found.append((path, record))
            except (OSError, ValueError) as error:
                log.warning("%s can't be read, and is not shown: %s", path, error)
        self._records = sorted(found, key=lambda entry: entry[1]["at"])[-FILES_MAX:]

    def shown(self) -> list[Record]:
        """For the status: who, on which blob, and in which file the evidence is; newest first."""
        brief = ("node", "name", "address", "at", "digest", "index", "cases")
        return [
            {name: record.get(name) for name in brief} | {"file": str(path)} for path, record in reversed(self._records)
        ]

    def _convict(self, c: cmd.Convict) -> None:
        record = record_of(c, int(time.time()))
        path = self._directory / f"{record['node'][:16]}-{c.voucher.digest.hex()[:16]}.json"
        log.warning(
            "node %s (%s) signed a false link: %s, piece %d, case %d; the evidence is %s",
            record["name"] or "never met",
            record["node"][:16],
            record["digest"],
            c.index,
            c.cases,
            path,
        )
        self._metrics.false_link()
        gone = self._make_room(record["node"], path)
        self._records.append((path, record))
        self._nursery.start_soon(self._write, path, record, gone)

    def _make_room(self, node: str, path: Path) -> list[Path]:
        gone = [entry for entry in self._records if entry[0] == path]
        if len(self._records) - len(gone) >= FILES_MAX:
            most = Counter(record["node"] for _, record in self._records).most_common(1)[0][0]
            gone.append(next(entry for entry in self._records if entry[1]["node"] == most))
        self._records = [entry for entry in self._records if entry not in gone]
        return [entry[0] for entry in gone if entry[0] != path]

    async def _write(self, path: Path, record: Record, gone: list[Path]) -> None:
        """Tasks begin in any order: what has been pushed out meanwhile is not written any more."""
        try:
            async with self._one_at_a_time:
                wanted = record if any(kept is record for _, kept in self._records) else None
                await trio.to_thread.run_sync(_replace, path, wanted, gone)
        except OSError as error:
            log.error("%s can't be written: %s", path, error.strerror)


def record_of(c: cmd.Convict, at: int) -> Record:
    """All that a stranger needs to check it: the voucher, and which of its links is false."""
    v, place = c.voucher, c.index - c.voucher.first
    contact = c.contact
    return {
        "node": node_id(v.key).hex(),
        "name": contact.name if contact else "",
        "address": f"{contact.host}:{contact.port}" if contact else "",
        "at": at,
        "digest": "sha256:" + v.digest.hex(),
        "index": c.index,
        "cases": c.cases,
        "state_before": v.states[place].hex(),
        "false_state_after": v.states[place + 1].hex(),
        "voucher": {
            "key": v.key.hex(),
            "upstream": v.upstream,
            "size": v.size,
            "term": v.term,
            "first": v.first,
            "states": [state.hex() for state in v.states],
            "signature": v.signature.hex(),
        },
    }


def _replace(path: Path, record: Record | None, gone: list[Path]) -> None:
    for old in gone:
        old.unlink(missing_ok=True)
    if record is None:
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    with temporary.open("w") as file:
        json.dump(record, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
