"""Messages to systemd (sd_notify(3)): ready, status, stopping, and the watchdog's sign of life.

Without NOTIFY_SOCKET each of them does nothing, so a daemon that was started by hand needs no other path. When to
send, and after which self-check, is the daemon's affair. Imports nothing of p2pd.
"""

from __future__ import annotations

import os
import socket

STATUS_MAX = 200  # characters; `systemctl status` shows one line


class Notifier:
    """Talks to the socket named by `environ` (default: os.environ). Never blocks; a lost message is no error."""

    def __init__(self, environ: dict[str, str] | None = None) -> None:
        source = os.environ if environ is None else environ
        self._environ = {key: source.get(key, "") for key in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")}

    def ready(self, status: str = "") -> bool:
        """Start-up is complete. All messages return whether systemd took them."""
        return self._send("READY=1", status)

    def status(self, text: str) -> bool:
        """One line for `systemctl status`."""
        return self._send("", text)

    def stopping(self, status: str = "") -> bool:
        """Shutdown has begun."""
        return self._send("STOPPING=1", status)

    def watchdog(self) -> bool:
        """Still alive. Send it only after a check that would fail if the daemon were stuck."""
        return self._send("WATCHDOG=1", "")

    def watchdog_interval(self) -> float | None:
        """Seconds between two signs of life: half of what systemd waits (sd_watchdog_enabled(3)); None without one."""
        microseconds, pid = self._environ["WATCHDOG_USEC"], self._environ["WATCHDOG_PID"]
        if not microseconds.isdigit() or int(microseconds) == 0 or (pid and pid != str(os.getpid())):
            return None
        return int(microseconds) / 2e6

    def _send(self, message: str, status: str) -> bool:
        lines = [message] if message else []
        if status:
            lines.append("STATUS=" + " ".join(status.split())[:STATUS_MAX])
        target = self._environ["NOTIFY_SOCKET"]
        if not lines or target[:1] not in ("/", "@"):
            return False
        if target.startswith("@"):  # Linux's abstract namespace
            target = "\0" + target[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as connection:
                connection.sendto("\n".join(lines).encode(), target)
        except OSError:
            return False
        return True
