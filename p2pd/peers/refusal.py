"""Who is refused, and why: counted by reason, and told once to whoever reads the log.

The words for reasons are a closed set, since they are a metric's label. Imports no more of p2pd than the errors.
"""

from __future__ import annotations

import logging
import ssl
from collections import OrderedDict
from collections.abc import Callable

import trio

from p2pd.peers.transport import ConnectionLost
from p2pd.swarm.messages import ProtocolError

QUIET_S = 3600.0  # one line about the same address and the same reason in this time
REMEMBERED_MAX = 1024  # addresses with a reason; the one that was told first is forgotten first
LINES_MAX = 20  # in LINES_S, over all addresses: a scan from many must not fill the log
LINES_S = 60.0

REASONS = (
    "plain-text",  # it does not speak TLS
    "tls-version",  # it speaks an older one than 1.3
    "no-certificate",
    "foreign-certificate",  # no CA of this fleet signed it
    "expired-certificate",
    "early-certificate",  # not valid yet
    "wrong-name",  # of a tracker: its certificate is for other addresses
    "bad-certificate",  # anything else that is wrong with it
    "refused-there",  # the other side refuses ours
    "too-often",  # it calls again and again
    "avoided",  # it broke the protocol a moment ago
    "hello",  # the first message: another version, another fleet, another key than the certificate's
    "unfinished",  # it left, or said nothing in time
    "tls",  # the handshake failed in some other way
)

# X509_V_ERR_* of OpenSSL's x509_vfy.h.
_BY_VERIFY_CODE = {
    2: "foreign-certificate",  # no issuer
    7: "foreign-certificate",  # an issuer of the same name, whose signature it is not
    9: "early-certificate",
    10: "expired-certificate",
    18: "foreign-certificate",  # signed by itself
    19: "foreign-certificate",
    20: "foreign-certificate",
    21: "foreign-certificate",
    30: "foreign-certificate",  # the issuer's key identifier differs
    62: "wrong-name",
    64: "wrong-name",
}
_BY_REASON = {
    "WRONG_VERSION_NUMBER": "plain-text",
    "HTTP_REQUEST": "plain-text",
    "HTTPS_PROXY_REQUEST": "plain-text",
    "PACKET_LENGTH_TOO_LONG": "plain-text",
    "BAD_RECORD_TYPE": "plain-text",
    "UNSUPPORTED_PROTOCOL": "tls-version",
    "NO_PROTOCOLS_AVAILABLE": "tls-version",
    "VERSION_TOO_LOW": "tls-version",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no-certificate",
}
_SHOWN = {
    "plain-text": "does not speak TLS, and this side speaks nothing else",
    "tls-version": "speaks no TLS 1.3",
    "no-certificate": "shows no certificate",
    "foreign-certificate": "shows a certificate that no CA of this fleet signed",
    "expired-certificate": "shows a certificate that has expired",
    "early-certificate": "shows a certificate that is not valid yet",
}


class Refused(ConnectionLost):
    """There will be no connection, and trying again would not help."""

    def __init__(self, reason: str, message: str) -> None:
        assert reason in REASONS
        super().__init__(message)
        self.reason = reason


def refused(error: ssl.SSLError, name: str = "") -> Refused:
    """What an error of OpenSSL's in a handshake means. `name`: what the other side was called by, if that counts."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = _BY_VERIFY_CODE.get(error.verify_code, "bad-certificate")
        if reason == "wrong-name":
            remedy = f"(issue it with --address {name})"
            return Refused(reason, f"shows a certificate for another address {remedy}: {error.verify_message}")
        return Refused(reason, _SHOWN.get(reason, f"shows a certificate that is refused: {error.verify_message}"))
    name = getattr(error, "reason", None) or ""
    if "ALERT" in name:
        return Refused("refused-there", f"refuses this side: {_alert(name)}")
    reason = _BY_REASON.get(name, "tls")
    return Refused(reason, _SHOWN.get(reason, f"the TLS handshake failed: {name or error}"))


def _alert(name: str) -> str:
    """ "unknown ca" of TLSV1_ALERT_UNKNOWN_CA."""
    return name.partition("ALERT_")[2].replace("_", " ").lower() or name


class Refusals:
    """Counts by `count(reason)`, and writes a line to `log` where it is not one too many."""

    def __init__(self, log: logging.Logger, count: Callable[[str], None] = lambda reason: None) -> None:
        self._log = log
        self._counted = count
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()  # who and why -> when
        self._lines = 0
        self._minute = float("-inf")

    def add(self, who: str, error: Exception) -> None:
        """`who`: an address, or a name and an address; what is told once about it."""
        reason = self.count(error)
        if reason == "unfinished":  # everyday: a port scan, a health check, a node that stops
            self._log.debug("%s was turned away: %s", who, error)
        elif self._is_news(who, reason, trio.current_time()):
            self._log.warning("refused %s: %s (not said again for %d minutes)", who, error, QUIET_S // 60)

    def count(self, error: Exception) -> str:
        """Only count; its reason."""
        reason = reason_of(error)
        self._counted(reason)
        return reason

    def _is_news(self, who: str, reason: str, now: float) -> bool:
        if now - self._told.get((who, reason), float("-inf")) < QUIET_S:
            return False
        if now - self._minute >= LINES_S:
            self._minute, self._lines = now, 0
        self._lines += 1
        if self._lines > LINES_MAX:
            return False
        self._told[who, reason] = now
        self._told.move_to_end((who, reason))
        if len(self._told) > REMEMBERED_MAX:
            self._told.popitem(last=False)
        return True


def reason_of(error: Exception) -> str:
    """The metric's word."""
    if isinstance(error, Refused):
        return error.reason
    return "hello" if isinstance(error, ProtocolError) else "unfinished"
