"""SHA-256 from any state on: the compression function of FIPS 180-4, as the libcrypto of this machine computes it.

A blob's SHA-256 is a chain: the eight words after piece i are all that the hash remembers, so each piece can be checked
by itself, in any order and on all cores, and the last check is the check of the digest. `hashlib` hides those words;
libcrypto's SHA256_Init, SHA256_Update and SHA256_Final keep them in a context of a known, public layout
(openssl/sha.h, SHA256state_st). They are called by ctypes, which lets go of the interpreter's lock meanwhile.

Not a policy: what a state proves, and whom a bad one convicts, is decided elsewhere. Imports nothing of p2pd.
`python -m p2pd.hashing` prints the speed of this machine.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import Any

Buffer = bytes | bytearray | memoryview

BLOCK_SIZE = 64  # bytes; FIPS 180-4, section 1: SHA-256 works on blocks of 512 bits
STATE_SIZE = 32  # bytes; eight words of 32 bits
LENGTH_MAX = (1 << 61) - 1  # bytes; the standard's length field has 64 bits, and counts bits
# FIPS 180-4, section 5.3.3: the fractional parts of the square roots of the first eight primes.
INITIAL_STATE: bytes = bytes.fromhex("6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19")

_GUARD_SIZE = 256  # bytes behind the context under test; a larger context than we know would write there
_GUARD = b"\xa5" * _GUARD_SIZE
_PyBUF_SIMPLE = 0


class HashingUnavailable(Exception):
    """This machine has no libcrypto with the SHA-256 interface that p2pd needs. The message lists what was tried."""


class _Context(ctypes.Structure):
    """SHA256state_st of openssl/sha.h: the same in OpenSSL 1.0 to 3.x, LibreSSL and BoringSSL."""

    _fields_ = (
        ("h", ctypes.c_uint32 * 8),
        ("bits_low", ctypes.c_uint32),
        ("bits_high", ctypes.c_uint32),
        ("data", ctypes.c_uint32 * 16),
        ("num", ctypes.c_uint32),
        ("md_len", ctypes.c_uint32),
    )


class _GuardedContext(ctypes.Structure):
    _fields_ = (("context", _Context), ("guard", ctypes.c_char * _GUARD_SIZE))


class _PyBuffer(ctypes.Structure):
    """Py_buffer of the C API (stable since Python 3.11): the address of any bytes-like object, read-only ones too."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int)
_get_buffer.restype = ctypes.c_int
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.POINTER(_PyBuffer),)
_release_buffer.restype = None


class _Library:
    """The three functions of one libcrypto. AttributeError if it does not have them."""

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        self.path = path
        self.init: Callable[..., int] = self._function(library.SHA256_Init, ctypes.c_void_p)
        self.update: Callable[..., int] = self._function(
            library.SHA256_Update, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
        )
        self.final: Callable[..., int] = self._function(library.SHA256_Final, ctypes.c_void_p, ctypes.c_void_p)
        self.version = self._version(library)

    @staticmethod
    def _function(function: Any, *argument_types: Any) -> Callable[..., int]:
        function.argtypes = argument_types
        function.restype = ctypes.c_int
        return function

    @staticmethod
    def _version(library: ctypes.CDLL) -> str:
        try:
            version = library.OpenSSL_version
        except AttributeError:
            return "unknown version"
        version.argtypes = (ctypes.c_int,)
        version.restype = ctypes.c_char_p
        return (version(0) or b"unknown version").decode("ascii", "replace")


class Compression:
    """SHA-256 from `state` on. Several objects run in parallel in several threads; one object belongs to one thread.

    `state`: 32 bytes, the eight words big-endian, as a digest shows them. `length`: how many bytes that state has
    already compressed, a multiple of 64; it matters for `digest` only. ValueError if either is not possible.
    """

    __slots__ = ("_context", "_library")

    def __init__(self, state: bytes = INITIAL_STATE, length: int = 0) -> None:
        self._library = _tested_library()
        self._context = _start(self._library, state, length)

    def update(self, data: Buffer) -> None:
        """Take in `data` (contiguous bytes), without a copy; other threads run meanwhile."""
        context = ctypes.byref(self._context)
        if type(data) is bytes:
            self._library.update(context, data, len(data))
            return
        view = _PyBuffer()
        _get_buffer(data, view, _PyBUF_SIMPLE)  # raises BufferError or TypeError itself
        try:
            self._library.update(context, view.buf, view.len)
        finally:
            _release_buffer(view)

    def state(self) -> bytes:
        """The state now, as `Compression(state, length)` takes it. ValueError within a block of 64 bytes."""
        if self._context.num:
            raise ValueError(f"no state within a block: {self._context.num} of {BLOCK_SIZE} bytes given")
        return struct.pack(">8I", *self._context.h)

    def digest(self) -> bytes:
        """The 32-byte SHA-256 of all bytes up to here, also those before `state`. The object stays usable."""
        return _finish(self._library, self._context)


def self_test() -> str:
    """Find a libcrypto and compare it with `hashlib`; says which one is used, for the log.

    HashingUnavailable if none fits. `Compression` makes the same test before its first use.
    """
    library = _tested_library()
    return f"{library.version} ({library.path})"


def _start(library: _Library, state: bytes, length: int, context: _Context | None = None) -> _Context:
    if len(state) != STATE_SIZE:
        raise ValueError(f"a SHA-256 state has {STATE_SIZE} bytes, not {len(state)}")
    if length % BLOCK_SIZE or not 0 <= length <= LENGTH_MAX:
        raise ValueError(f"{length} bytes can't lie before a state: it must be a multiple of {BLOCK_SIZE}")
    context = context or _Context()
    library.init(ctypes.byref(context))
    context.h[:] = struct.unpack(">8I", state)
    context.bits_low = length * 8 & 0xFFFFFFFF
    context.bits_high = length * 8 >> 32
    return context


def _finish(library: _Library, context: _Context) -> bytes:
    copy = _Context.from_buffer_copy(context)
    digest = ctypes.create_string_buffer(STATE_SIZE)
    library.final(digest, ctypes.byref(copy))
    return digest.raw


@functools.cache
def _tested_library() -> _Library:
    tried: list[str] = []
    for path in _candidates():
        try:
            library = _Library(path)
        except (OSError, AttributeError) as error:
            tried.append(f"{path}: {error}")
            continue
        difference = _difference(library)
        if difference is None:
            return library
        tried.append(f"{path} ({library.version}): {difference}")
    raise HashingUnavailable(
        "no libcrypto with a usable SHA256_Init/Update/Final: "
        + ("; ".join(tried) or "none found")
        + ". Install your distribution's OpenSSL library (Debian: libssl3) and a Python that is linked to it"
    )


def _candidates() -> Iterator[str]:
    """The libcrypto that the interpreter's own `_hashlib` has loaded; else the system's."""
    seen = set()
    try:
        import _hashlib  # noqa: F401  (loads its libcrypto into this process)

        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            for line in maps:
                # address perms offset dev inode pathname (proc(5)); a path may hold blanks
                fields = line.rstrip("\n").split(maxsplit=5)
                path = fields[5] if len(fields) == 6 else ""
                if "libcrypto" in path.rsplit("/", 1)[-1] and path not in seen:
                    seen.add(path)
                    yield path
    except (ImportError, OSError):
        pass  # a Python without OpenSSL, or a system without /proc: the system's library is next
    found = ctypes.util.find_library("crypto")
    if found is not None and found not in seen:
        yield found


def _difference(library: _Library) -> str | None:
    """What tells `library` from the layout that we know and from `hashlib`; None if nothing does."""
    if struct.unpack(">I", INITIAL_STATE[:4])[0] != _first_word(library):
        return "the context's first word is not SHA-256's initial value"
    sample = bytes(range(256)) * 20 + b"end"
    for length in (0, 1, 55, 56, 63, 64, 65, 127, 128, 1000, 4096, len(sample)):
        for split in {0, min(64, length) // 64 * 64, length // 2 // 64 * 64, length // 64 * 64}:
            difference = _difference_at(library, sample[:length], split)
            if difference is not None:
                return f"{difference} ({length} bytes in parts of {split} and {length - split})"
    return None


def _first_word(library: _Library) -> int:
    guarded = _GuardedContext()
    library.init(ctypes.byref(guarded))
    return guarded.context.h[0]


def _difference_at(library: _Library, sample: bytes, split: int) -> str | None:
    """Hash `sample` in two parts: the state after the first is taken out, and put into a fresh context."""
    guarded = _GuardedContext()
    guard = (ctypes.c_char * _GUARD_SIZE).from_buffer(guarded, ctypes.sizeof(_Context))
    guard.raw = _GUARD
    first = _start(library, INITIAL_STATE, 0, guarded.context)
    library.update(ctypes.byref(first), sample[:split], split)
    if first.num or first.bits_low != split * 8 or first.bits_high:
        return "the context does not count as expected"
    second = _start(library, struct.pack(">8I", *first.h), split)
    library.update(ctypes.byref(second), sample[split:], len(sample) - split)
    if _finish(library, second) != hashlib.sha256(sample).digest():
        return "the digest differs from hashlib's"
    library.update(ctypes.byref(first), sample[split:], len(sample) - split)
    if _finish(library, first) != hashlib.sha256(sample).digest() or guard.raw != _GUARD:
        return "the context is larger than expected"
    return None


def _bench(size: int = 256 << 20, piece_size: int = 4 << 20) -> None:
    """Print GB/s of hashlib, of one thread and of two threads over one blob of `size` bytes."""
    import threading
    import time

    piece = memoryview(bytearray(piece_size))
    count = size // piece_size

    def by_hashlib() -> None:
        whole = hashlib.sha256()
        for _ in range(count):
            whole.update(piece)

    def compress(pieces: int) -> None:
        for _ in range(pieces):
            one = Compression()
            one.update(piece)
            one.state()

    def by_threads(threads: int) -> None:
        workers = [threading.Thread(target=compress, args=(count // threads,)) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    print(self_test())
    for name, run in (
        ("hashlib", by_hashlib),
        ("one thread", lambda: by_threads(1)),
        ("two threads", lambda: by_threads(2)),
    ):
        start = time.perf_counter()
        run()
        print(f"{name:12} {size / (time.perf_counter() - start) / 1e9:6.2f} GB/s")


if __name__ == "__main__":
    _bench()
