"""One request of a registry carried through: counted, redirected by hand, tried again, held back after a 429.

Not here: what is asked and what the answer means (registry.py), tokens (auth.py). May know this package only.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

import trio

from p2pd import __version__
from p2pd.upstream.config import UpstreamConfig
from p2pd.upstream.errors import AddressRefused, BadAnswer, RateLimited, Unreachable
from p2pd.upstream.headers import RETRY_AFTER_MAX_S, parse_remaining, parse_retry_after
from p2pd.upstream.transport import Answer, Transport
from p2pd.upstream.urls import origin, redirect_target

REDIRECTS_MAX = 10  # as Go's client, and with it every other OCI client
TRIES_MAX = 3
RETRIED = frozenset({500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
BACKOFF_S = 0.25  # before the second try; doubles; each spread by half of it either way
RETRY_WAIT_MAX_S = 5.0  # a registry that asks for more patience than this gets it from the caller

OnRequest = Callable[[str, str, int | None], None]
OnRateLimit = Callable[[str, int], None]


class Exchange:
    """Sends the requests of one registry. `held_until` is in seconds of `clock`."""

    def __init__(
        self,
        config: UpstreamConfig,
        transport: Transport,
        on_request: OnRequest,
        on_rate_limit: OnRateLimit | None,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._name = config.host
        self._home = origin(config.url)
        self._transport = transport
        self._on_request = on_request
        self._on_rate_limit = on_rate_limit
        self._clock = clock
        self.held_until = float("-inf")

    def hold(self, seconds: float) -> None:
        """Send nothing for so long (at most an hour). A longer hold stays."""
        self.held_until = max(self.held_until, self._clock() + min(max(seconds, 0.0), RETRY_AFTER_MAX_S))

    def check_hold(self) -> None:
        """RateLimited while the registry wants peace."""
        left = self.held_until - self._clock()
        if left > 0:
            raise RateLimited(f"{self._name}: held back for another {left:.0f} s, as the registry asked", left)

    async def send(
        self,
        kind: str,
        what: str,
        method: str,
        url: str,
        headers: Mapping[str, str],
        authorization: str | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """The answer that is neither a redirect nor a 429 nor a failure that may pass. The caller closes it.

        At most TRIES_MAX tries for connections that fail and for 500, 502, 503, 504. The caller bounds the whole time.
        """
        for tries in range(1, TRIES_MAX + 1):
            wait = BACKOFF_S * 2 ** (tries - 1) * random.uniform(0.5, 1.5)
            try:
                answer = await self._follow(kind, what, method, url, headers, authorization, body)
            except Unreachable as error:
                if not error.passing or tries == TRIES_MAX:
                    raise
            else:
                if answer.status not in RETRIED:
                    return answer
                if answer.header("retry-after"):
                    wait = max(wait, parse_retry_after(answer.header("retry-after"), time.time()))
                await answer.discard()
                if tries == TRIES_MAX or wait > RETRY_WAIT_MAX_S:
                    raise BadAnswer(f"{what}: answered {answer.status}, {tries} of {TRIES_MAX} tries")
            await trio.sleep(wait)
        raise AssertionError("the last try returns or raises")

    async def _follow(
        self,
        kind: str,
        what: str,
        method: str,
        url: str,
        headers: Mapping[str, str],
        authorization: str | None,
        body: bytes | None,
    ) -> Answer:
        """Through redirects. Authorization goes only where the first request went: same scheme, host and port."""
        first = origin(url)
        for _ in range(REDIRECTS_MAX + 1):
            own = {"authorization": authorization} if authorization and origin(url) == first else {}
            answer = await self._send_once(kind, what, method, url, {**headers, **own}, body)
            if answer.status not in REDIRECTS:
                return answer
            await answer.discard()
            if body is not None:
                raise BadAnswer(f"{what}: a redirect of a request that carries a secret")
            try:
                url = redirect_target(url, answer.header("location"))
            except BadAnswer as error:
                raise BadAnswer(f"{what}: {error}") from None
        raise BadAnswer(f"{what}: more than {REDIRECTS_MAX} redirects")

    async def _send_once(
        self, kind: str, what: str, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        self.check_hold()
        # Bytes as they are: a digest and a range are of the unencoded body (RFC 9110, 8.4 and 14.1.2).
        common = {"user-agent": f"p2pd/{__version__}", "accept-encoding": "identity"}
        code = None
        sent = True
        try:
            answer = await self._transport.send(what, method, url, common | dict(headers), body)
            code = answer.status
        except AddressRefused:
            sent = False
            raise
        finally:
            if sent:
                self._on_request(self._name, kind, code)
        if origin(url) == self._home and self._on_rate_limit is not None:
            remaining = parse_remaining(answer.header("ratelimit-remaining"))
            if remaining is not None:
                self._on_rate_limit(self._name, remaining)
        if answer.status == 429:
            seconds = parse_retry_after(answer.header("retry-after"), time.time())
            self.hold(seconds)
            await answer.discard()
            raise RateLimited(f"{what}: answered 429, asks for {seconds:.0f} s of peace", seconds)
        return answer
