"""A throw-away fleet: its CA, and its members' certificates, made as `p2pd fleet` makes them, but in this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from p2pd.fleet.authority import CA_CERTIFICATE, init_authority, issue

DAYS = 2  # a lab lives for minutes


@dataclass(frozen=True, slots=True)
class Papers:
    """One member's files."""

    ca: Path
    certificate: Path
    key: Path


class Certificates:
    """One CA in a new directory, or in one that holds it already."""

    def __init__(self, directory: Path, name: str = "lab") -> None:
        self.directory = directory
        if not (directory / CA_CERTIFICATE).exists():
            init_authority(directory, name, 10 * DAYS)

    @property
    def ca(self) -> Path:
        return self.directory / CA_CERTIFICATE

    def issue(self, name: str, *addresses: str) -> Papers:
        """A member's; `addresses` are needed by trackers."""
        made = issue(self.directory, name, addresses, DAYS, self.directory)
        return Papers(self.ca, made.certificate, made.key)
