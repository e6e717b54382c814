"""Which repositories an operator means: "registry.example/secret/*". Pure; knows the OCI grammar only."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from p2pd import oci

_FORM = re.compile(r"[a-zA-Z0-9*][a-zA-Z0-9*.:-]*(?:/[a-z0-9*._-]+)*", re.ASCII)
PATTERN_LENGTH_MAX = 512  # characters: a host of 255, a name of 255, and the slash
WILDCARDS_MAX = 8  # each may be tried at every place of a name


@dataclass(frozen=True)
class RepositoryPattern:
    """A registry, or a repository and all below it; `*` stands for any characters, slashes too."""

    text: str
    _expression: re.Pattern[str] = field(repr=False, compare=False)

    def matches(self, upstream: str, repository: str) -> bool:
        """Of names in normal form."""
        return self._expression.fullmatch(f"{upstream}/{repository}") is not None

    @classmethod
    def parse(cls, text: str) -> RepositoryPattern:
        """ValueError if it is not one; the text says what is allowed."""
        host, slash, name = text.partition("/")
        hostlike = "." in host or ":" in host or "*" in host or host == "localhost"
        if not _FORM.fullmatch(text) or not hostlike or len(text) > PATTERN_LENGTH_MAX:
            raise ValueError(
                f"{text[:80]!r} is not a pattern of repositories: write host/name, as in "
                '"registry.example/secret/*"; * stands for any characters'
            )
        if text.count("*") > WILDCARDS_MAX:
            raise ValueError(f"{text[:80]!r} has more than {WILDCARDS_MAX} wildcards (*)")
        host = host.lower() if "*" in host else oci.normal_host(host)
        if name and "*" not in name:
            name = oci.normal_repository(host, name)
        expression = ".*".join(re.escape(part) for part in f"{host}{slash}{name}".split("*"))
        return cls(text, re.compile(f"{expression}(?:/.*)?"))
