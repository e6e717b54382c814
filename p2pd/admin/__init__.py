"""What the operator sees of a running node: metrics, health and status (reads only), and the control socket.

Not the commands themselves: the daemon hands those in. Imports nothing of p2pd.
"""

from p2pd.admin.control import CommandFailed, ControlError, NotAllowed, NotRunning, request, serve_control
from p2pd.admin.http import AdminState, serve_admin
from p2pd.admin.metrics import Metrics

__all__ = [
    "AdminState",
    "CommandFailed",
    "ControlError",
    "Metrics",
    "NotAllowed",
    "NotRunning",
    "request",
    "serve_admin",
    "serve_control",
]
