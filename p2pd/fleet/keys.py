"""The node's Ed25519 key, which signs vouchers: its certificate's, or one made at the first start of a node without.

Not certificates. Imports nothing of p2pd.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

FILE_NAME = "node.key"


class KeyFileError(Exception):
    """The key file can't be read or made. The message names it and the remedy."""


class NodeKey:
    """`public`: the 32 raw bytes that others know this node by."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """64 bytes."""
        return self._private.sign(data)

    @classmethod
    def generate(cls) -> NodeKey:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load_or_make(cls, directory: Path) -> NodeKey:
        """The key of this state directory, made now if there is none. KeyFileError."""
        path = directory / FILE_NAME
        try:
            return cls(_parse(path.read_bytes(), path))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise KeyFileError(f"{path} can't be read: {error.strerror}") from None
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        temporary = path.with_suffix(".new")
        try:
            directory.mkdir(parents=True, exist_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        except OSError as error:
            raise KeyFileError(f"{path} can't be made: {error.strerror}; is the state directory writable?") from None
        return cls(key)


def verify(key: bytes, signature: bytes, data: bytes) -> bool:
    """Whether `signature` over `data` is that key's."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def public_bytes(certificate: x509.Certificate) -> bytes | None:
    """The 32 raw bytes of a certificate's key; None if it is not Ed25519."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else None


def _parse(pem: bytes, path: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        raise KeyFileError(f"{path} holds no key: remove it, and the node makes itself a new one") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} holds a key of another kind than Ed25519: remove it")
    return key
