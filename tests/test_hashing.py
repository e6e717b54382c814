"""The state chain against hashlib: any split, any piece size, any kind of buffer."""

from __future__ import annotations

import hashlib
import mmap
import struct
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd import hashing
from p2pd.hashing import INITIAL_STATE, Compression, HashingUnavailable


def test_initial_state_is_the_standards() -> None:
    # FIPS 180-4: the first 32 bits of the fractional parts of the square roots of the first eight primes.
    def word(prime: int) -> int:
        root = 0
        for bit in reversed(range(40)):  # the integer square root of prime * 2^64, bit by bit
            if (root | 1 << bit) ** 2 <= prime << 64:
                root |= 1 << bit
        return root & 0xFFFFFFFF

    assert struct.pack(">8I", *map(word, (2, 3, 5, 7, 11, 13, 17, 19))) == INITIAL_STATE
    assert Compression().state() == INITIAL_STATE


def test_self_test_names_the_library() -> None:
    assert "libcrypto" in hashing.self_test()


@given(data=st.binary(max_size=1000), cuts=st.lists(st.integers(0, 1000), max_size=6))
def test_any_split_gives_hashlibs_digest(data: bytes, cuts: list[int]) -> None:
    ends = [*sorted(min(cut, len(data)) for cut in cuts), len(data)]
    compression = Compression()
    start = 0
    for end in ends:
        compression.update(data[start:end])
        start = end
    assert compression.digest() == hashlib.sha256(data).digest()


@given(data=st.binary(max_size=3000), blocks=st.integers(1, 8), backwards=st.booleans())
def test_pieces_checked_in_any_order_chain_to_the_digest(data: bytes, blocks: int, backwards: bool) -> None:
    piece_size = blocks * 64
    pieces = [data[at : at + piece_size] for at in range(0, len(data), piece_size)] or [b""]
    states = [INITIAL_STATE]
    for piece in pieces[:-1]:
        link = Compression(states[-1])
        link.update(piece)
        states.append(link.state())
    for index in reversed(range(len(pieces))) if backwards else range(len(pieces)):
        link = Compression(states[index], index * piece_size)
        link.update(pieces[index])
        if index + 1 < len(pieces):
            assert link.state() == states[index + 1]
        else:
            assert link.digest() == hashlib.sha256(data).digest()


@given(data=st.binary(min_size=64, max_size=640), bit=st.integers(0, 511))
def test_a_flipped_bit_does_not_hold(data: bytes, bit: int) -> None:
    data = data[: len(data) // 64 * 64]
    wrong = bytearray(data)
    wrong[bit // 8] ^= 1 << bit % 8
    right_link, wrong_link = Compression(), Compression()
    right_link.update(data)
    wrong_link.update(wrong)
    assert right_link.state() != wrong_link.state()


def test_digest_leaves_the_object_usable() -> None:
    compression = Compression()
    compression.update(b"abc")
    assert compression.digest() == hashlib.sha256(b"abc").digest() == compression.digest()
    compression.update(b"def")
    assert compression.digest() == hashlib.sha256(b"abcdef").digest()


def test_no_state_within_a_block() -> None:
    compression = Compression()
    compression.update(bytes(65))
    with pytest.raises(ValueError, match="1 of 64 bytes"):
        compression.state()


def test_length_above_32_bits_of_bits() -> None:
    # The padding holds the length in bits, in 64 bits: 2^29 bytes are the first that need the high word.
    length = 1 << 29
    compression = Compression(INITIAL_STATE, length)
    padding = b"\x80" + bytes(55) + struct.pack(">Q", length * 8)
    by_hand = Compression()
    by_hand.update(padding)
    assert compression.digest() == by_hand.state()


@pytest.mark.parametrize("length", [-64, 1, 63, 1 << 61])
def test_impossible_length(length: int) -> None:
    with pytest.raises(ValueError, match="multiple of 64"):
        Compression(INITIAL_STATE, length)


def test_impossible_state() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        Compression(INITIAL_STATE[:31])


def test_any_buffer() -> None:
    data = bytes(range(256))
    with mmap.mmap(-1, 256) as mapped:
        mapped[:] = data
        view = memoryview(mapped)
        buffers = [data, bytearray(data), memoryview(data), memoryview(bytearray(b"x" + data))[1:], view, view[:0]]
        for buffer in buffers:
            compression = Compression()
            compression.update(buffer)
            assert compression.digest() == hashlib.sha256(buffer).digest()
        del buffer, buffers
        view.release()


def test_buffer_is_released_and_not_resizable_meanwhile() -> None:
    data = bytearray(640)
    Compression().update(data)
    data += b"x"  # BufferError if update had kept its hold


def test_no_bytes_like_object() -> None:
    with pytest.raises(TypeError):
        Compression().update("text")  # type: ignore[arg-type]
    with pytest.raises(BufferError):
        Compression().update(memoryview(bytes(128))[::2])


def test_other_threads_run_during_update() -> None:
    # With the interpreter's lock held, the other thread could not count while one long update runs.
    data = bytearray(48 << 20)
    counted_during = 0
    running = threading.Event()

    def count() -> None:
        nonlocal counted_during
        running.wait()
        while running.is_set():
            counted_during += 1
            time.sleep(0)  # hands the lock back

    thread = threading.Thread(target=count)
    thread.start()
    old = sys.getswitchinterval()
    sys.setswitchinterval(10)  # no forced switch: only letting go of the lock lets the other thread run
    try:
        compression = Compression()
        running.set()
        compression.update(data)
        during = counted_during
    finally:
        running.clear()
        sys.setswitchinterval(old)
        thread.join()
    assert during > 0
    assert compression.digest() == hashlib.sha256(data).digest()


def test_many_threads_give_the_same_as_one() -> None:
    pieces = [bytes([number]) * 64 * 997 for number in range(16)]
    results: dict[int, bytes] = {}

    def work(number: int) -> None:
        compression = Compression()
        compression.update(pieces[number])
        results[number] = compression.digest()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: hashlib.sha256(piece).digest() for number, piece in enumerate(pieces)}


class _Lying:
    """A libcrypto whose context is laid out otherwise: the words are not where we look."""

    version = "OpenSSL 9"

    def __init__(self, path: str) -> None:
        real = hashing._tested_library()
        self.path = path
        self.update, self.final = real.update, real.final
        self.init = lambda context: 1


def test_another_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = hashing._tested_library()
    assert hashing._difference(real) is None
    lying = _Lying("/lib/other.so")
    assert hashing._difference(lying) is not None  # type: ignore[arg-type]

    class Swapped(_Lying):
        """Words in place, but another padding: only the comparison with hashlib finds it."""

        def __init__(self, path: str) -> None:
            super().__init__(path)
            self.init = real.init
            self.final = lambda digest, context: 1

    assert "hashlib" in (hashing._difference(Swapped("x")) or "")  # type: ignore[arg-type]


def test_no_library_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_candidates", lambda: iter(["/nonexistent/libcrypto.so", "libc.so.6"]))
    hashing._tested_library.cache_clear()
    try:
        with pytest.raises(HashingUnavailable, match=r"/nonexistent/libcrypto\.so.*libc\.so\.6.*libssl3"):
            hashing.self_test()
    finally:
        hashing._tested_library.cache_clear()


def test_the_systems_library_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_proc(*args: object, **kwargs: object) -> None:
        raise FileNotFoundError("/proc/self/maps")

    monkeypatch.setattr("builtins.open", no_proc)
    monkeypatch.setattr(hashing.ctypes.util, "find_library", lambda name: f"lib{name}.so.3")
    assert list(hashing._candidates()) == ["libcrypto.so.3"]


def test_the_bench_runs() -> None:
    code = "from p2pd import hashing; hashing._bench(1 << 20, 1 << 18)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("GB/s") == 3
