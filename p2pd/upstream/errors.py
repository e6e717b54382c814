"""What a registry can do to us, as exceptions. No other error leaves this package, except for bugs of our own.

    UpstreamError
    +-- UnknownUpstream    the host is not among the configured registries
    +-- NotFound           404: the registry does not have it, or does not say so to us
    +-- Denied             401 or 403 after the whole token flow
    +-- RateLimited        429, or a hold that an earlier 429 left behind
    +-- Unreachable        no route, name, connection or TLS, or no byte for too long
    +-- BadAnswer          5xx after the retries, a short body, headers that contradict what was asked
        +-- AddressRefused a redirect or realm that leads to an address which a registry must not send us to

The text of each is fit for a log: it names the registry and the thing asked for, and holds no credential, no token and
no URL that the registry signed. Imports nothing of p2pd.
"""

from __future__ import annotations

RETRY_AFTER_DEFAULT_S = 5.0  # a 429 without Retry-After: long enough to matter, short enough to notice the end


class UpstreamError(Exception):
    """Root of all errors that a registry, or the way to it, causes."""


class UnknownUpstream(UpstreamError):
    """The host is not among the configured registries."""


class NotFound(UpstreamError):
    """The registry answered 404."""


class Denied(UpstreamError):
    """The registry refused us, `status` 401 or 403, with the credentials that we have (or none)."""

    def __init__(self, message: str, status: int = 401) -> None:
        super().__init__(message)
        self.status = status


class RateLimited(UpstreamError):
    """The registry asks for peace for `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float = RETRY_AFTER_DEFAULT_S) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unreachable(UpstreamError):
    """No answer came. `passing`: the cause may be gone in a second, so that another try has sense."""

    def __init__(self, message: str, passing: bool = True) -> None:
        super().__init__(message)
        self.passing = passing


class BadAnswer(UpstreamError):
    """An answer came that can't be used."""


class AddressRefused(BadAnswer):
    """The registry sent us to a loopback, link-local or private address. The request was not sent."""
