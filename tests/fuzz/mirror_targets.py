"""A request's target and Host, apart from HTTP: names in the grammar of an allowed upstream, or BadTarget."""

from __future__ import annotations

from p2pd import oci
from p2pd.mirror.targets import BadTarget, is_loopback, parse_target, split_authority

ALLOWED = {"docker.io", "ghcr.io", "registry.test:5000", "localhost:5000"}
MESSAGE_MAX = 500  # characters of what is answered: it goes into a log as well


def check(data: bytes) -> None:
    text = data.decode("latin-1")
    authority, path = split_authority(text)
    if is_loopback(authority or ""):
        assert authority and len(authority) < 300
    try:
        target = parse_target(path, "docker.io", ALLOWED.__contains__)
    except BadTarget as error:
        assert error.status in (400, 404)
        assert len(error.message) <= MESSAGE_MAX
        return
    if target.form == "ping":
        return
    assert target.upstream in ALLOWED
    assert oci.check_repository(target.repository.removeprefix("library/"))
    assert target.query.isascii() and target.query.isprintable()
    if target.form in ("blob", "referrers"):
        assert oci.DIGEST.fullmatch(target.reference)
    elif target.form == "manifest":
        assert oci.DIGEST.fullmatch(target.reference) or oci.TAG.fullmatch(target.reference)
