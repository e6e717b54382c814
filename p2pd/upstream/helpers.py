"""Docker's credential helpers: `docker-credential-NAME get`, the server on its input, JSON on its output.

Source: docker/docker-credential-helpers. May know this package's auth files, credentials and programs.
"""

from __future__ import annotations

import json

from p2pd.upstream.auth_files import Helper
from p2pd.upstream.credentials import BadCredentials, Credentials, IdentityToken, Password, is_plain
from p2pd.upstream.programs import ask_program, find_program

_NOT_FOUND = b"credentials not found"  # the beginning of how every helper says that it has none
_TOKEN_USER = "<token>"  # the user name under which an identity token is kept


async def ask_helper(helper: Helper) -> Credentials | None:
    """What the helper has for its server, or None. BadCredentials if it fails."""
    name = f"docker-credential-{helper.name}"
    status, output = await ask_program(find_program(name), ["get"], helper.server.encode())
    if status != 0 and output.strip().lower().startswith(_NOT_FOUND):
        return None
    by_hand = f"try it by hand: echo {helper.server} | {name} get"
    if status != 0:
        raise BadCredentials(f"{name} ended with status {status} when asked for {helper.server}; {by_hand}")
    try:
        document = json.loads(output)
    except (ValueError, RecursionError):
        document = None
    fields = document if isinstance(document, dict) else {}
    username, secret = fields.get("Username"), fields.get("Secret")
    if not isinstance(username, str) or not isinstance(secret, str) or not secret or not is_plain(username, secret):
        raise BadCredentials(f"{name} answered without Username and Secret when asked for {helper.server}; {by_hand}")
    return IdentityToken(secret) if username == _TOKEN_USER else Password(username, secret)
