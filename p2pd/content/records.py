"""What the store's journal keeps with a checked piece: the states around it and its voucher. May know p2pd.swarm."""

from __future__ import annotations

from p2pd.swarm.messages import FRAME_HEADER, ProtocolError, Vouch, decode, encode

STATE_SIZE = 32  # bytes


def pack_record(before: bytes, after: bytes, voucher: Vouch | None) -> bytes:
    """32 bytes of state, 32 bytes of state, and the voucher's message, if there is one."""
    return before + after + (encode(voucher)[FRAME_HEADER.size :] if voucher else b"")


def unpack_record(record: bytes) -> tuple[bytes, bytes, Vouch | None] | None:
    """What `pack_record` wrote; None for anything else (a record of another version)."""
    before, after, rest = record[:STATE_SIZE], record[STATE_SIZE : 2 * STATE_SIZE], record[2 * STATE_SIZE :]
    if len(after) != STATE_SIZE:
        return None
    if not rest:
        return before, after, None
    try:
        voucher = decode(rest)
    except ProtocolError:
        return None
    return (before, after, voucher) if isinstance(voucher, Vouch) else None
