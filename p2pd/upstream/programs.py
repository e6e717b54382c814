"""Programs that are asked a question on their input and answer on their output: credential helpers and plugins.

Run without a shell, in a session of their own, with a limit on time and on output. What they write is never logged:
it may be a secret, and so may what they complain of. Imports nothing of p2pd but this package's credentials.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

from p2pd.upstream.credentials import BadCredentials

PROGRAM_TIMEOUT_S = 10.0  # a cloud's metadata service answers in well under a second; the mirror has 15 for it all
OUTPUT_SIZE_MAX = 256 * 1024  # bytes; real answers have a few KiB
PROGRAMS_MAX = 4  # at a time: each may be an interpreter of its own
STOP_WAIT_S = 2.0  # for the end of one that was killed

# The daemon's own affairs: a program that thinks it is the service would speak for it.
_NOT_INHERITED = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"})


def find_program(name: str) -> Path:
    """A program on the PATH. BadCredentials if there is none."""
    found = shutil.which(name)
    if found is None:
        raise BadCredentials(
            f"{name} is not on p2pd's PATH ({os.environ.get('PATH', '')}): install it, or link it there"
        )
    return Path(found)


async def ask_program(
    program: Path, arguments: Sequence[str], question: bytes, environment: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Exit status and output. BadCredentials if it can't be run, takes too long or says too much. Cancelling it kills
    the program, and what that has started."""
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    async with _places():
        try:
            process = await trio.lowlevel.open_process(
                [str(program), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=inherited | dict(environment or {}),
            )
        except OSError as error:
            raise BadCredentials(f"{program} can't be run: {error.strerror}") from None
        output, status = bytearray(), None
        try:
            with trio.move_on_after(PROGRAM_TIMEOUT_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_tell, process, question)
                    await _listen(process, output)
                    if len(output) <= OUTPUT_SIZE_MAX:
                        status = await process.wait()
                    nursery.cancel_scope.cancel()
        finally:
            await _end(process, kill=status is None)
    if len(output) > OUTPUT_SIZE_MAX:
        raise BadCredentials(f"{program} answered with more than {OUTPUT_SIZE_MAX} bytes")
    if status is None:
        raise BadCredentials(f"{program} did not answer within {PROGRAM_TIMEOUT_S:g} s")
    return status, bytes(output)


_limiters: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("programs")


def _places() -> trio.CapacityLimiter:
    try:
        return _limiters.get()
    except LookupError:
        limiter = trio.CapacityLimiter(PROGRAMS_MAX)
        _limiters.set(limiter)
        return limiter


async def _tell(process: trio.Process, question: bytes) -> None:
    assert process.stdin
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # it need not read
        async with process.stdin:
            await process.stdin.send_all(question)


async def _listen(process: trio.Process, output: bytearray) -> None:
    """Up to its end, or a little more than is allowed."""
    assert process.stdout
    async for data in process.stdout:
        output += data
        if len(output) > OUTPUT_SIZE_MAX:
            return


async def _end(process: trio.Process, *, kill: bool) -> None:
    with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_WAIT_S):
        if kill:  # and what it has started; it has not been waited for, so that the number is still its own
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                await stream.aclose()
        await process.wait()
