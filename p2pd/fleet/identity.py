"""A member's identity: its certificate and key, and the CAs that it trusts, as they stand in three files.

What is wrong with them is found here, before a peer finds it, and said with the remedy. Not when they are read anew
(`p2pd.fleet.membership`), nor how they are made (`p2pd.fleet.authority`). May know p2pd.fleet's keys.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from p2pd.fleet.keys import NodeKey, public_bytes

FILE_SIZE_MAX = 256 * 1024  # bytes; a bundle of a few CAs is a few KiB
CHAIN_MAX = 8  # certificates in the certificate's file: the member's own and its intermediates
AUTHORITIES_MAX = 32  # certificates in the CAs' file

# OpenSSL's X509_V_ERR_*, of which the operator should hear more than their names.
NOT_YET_VALID, EXPIRED, WRONG_PURPOSE = 9, 10, 26
NO_ISSUER = (2, 18, 19, 20, 21)

ED25519_HINT = (
    "it also signs vouchers, so it must be an Ed25519 key (the CA's own may be of any kind): "
    "with step-ca `step ca certificate --kty OKP --curve Ed25519`, with Vault `key_type=ed25519` in the PKI role, "
    "with cert-manager `privateKey.algorithm: Ed25519`"
)


class FleetError(Exception):
    """The files are no identity. The message names the file and the remedy."""


@dataclass(frozen=True)
class FleetFiles:
    """PEM files. `ca`: whom to trust, one or several; `certificate`: the member's own, then its intermediates."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Span:
    """A certificate's name, its SHA-256, and when it is valid: seconds since 1970."""

    name: str
    fingerprint: bytes  # two CAs of one name may begin in the same second
    begins_at: float
    ends_at: float

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Span:
        return cls(
            certificate.subject.rfc4514_string() or f"serial number {certificate.serial_number:x}",
            certificate.fingerprint(SHA256()),
            certificate.not_valid_before_utc.timestamp(),
            certificate.not_valid_after_utc.timestamp(),
        )


@dataclass(frozen=True, eq=False)
class Identity:
    """One reading of the files. `chain`: the member's own certificate and its intermediates.

    The contexts: for who calls here, for calls to a node that its key tells, for calls to who only an address tells.
    """

    key: NodeKey
    chain: tuple[Span, ...]
    authorities: tuple[Span, ...]
    accepting: ssl.SSLContext
    calling: ssl.SSLContext
    calling_by_name: ssl.SSLContext

    @classmethod
    def load(cls, files: FleetFiles) -> Identity:
        """FleetError; not for a certificate that is not valid at this time, which may pass."""
        try:
            return cls._load(files)
        except ValueError as error:  # somewhere in a certificate that breaks the standard
            raise FleetError(f"{files.ca}, {files.certificate}: a certificate is not understood: {error}") from None

    @classmethod
    def _load(cls, files: FleetFiles) -> Identity:
        trusted = certificates(files.ca, AUTHORITIES_MAX)
        chain = certificates(files.certificate, CHAIN_MAX)
        private = private_key(files.key)
        for authority in trusted:
            if not _is_authority(authority):
                who = Span.of(authority).name
                raise FleetError(f"{files.ca}: {who} is no CA: here belongs the CA's certificate, not a node's")
        own = public_bytes(chain[0])
        if own is None:
            raise FleetError(f"{files.certificate}: its key is {_kind(chain[0])}; {ED25519_HINT}")
        if own != private.public_key().public_bytes_raw():
            raise FleetError(f"{files.key} is not the key of {files.certificate}: they must come from the same issue")
        accepting = _context(ssl.PROTOCOL_TLS_SERVER, trusted, chain, private, files)
        calling = _context(ssl.PROTOCOL_TLS_CLIENT, trusted, chain, private, files)
        by_name = _context(ssl.PROTOCOL_TLS_CLIENT, trusted, chain, private, files)
        by_name.check_hostname = True
        _try(accepting, calling, files)
        spans = tuple(map(Span.of, chain)), tuple(map(Span.of, trusted))
        return cls(NodeKey(private), *spans, accepting, calling, by_name)

    @property
    def ends_at(self) -> float:
        """When the first certificate of its chain ends."""
        return min(span.ends_at for span in self.chain)

    def trusts_all_of(self, other: Identity) -> bool:
        """Whether no CA that the other one trusts is missing here."""
        return set(other.authorities) <= set(self.authorities)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_SIZE_MAX + 1)
    except OSError as error:
        raise FleetError(f"{path} can't be read: {error.strerror}; p2pd's user must be able to read it") from None
    if len(data) > FILE_SIZE_MAX:
        raise FleetError(f"{path} is larger than {FILE_SIZE_MAX} bytes; is it a PEM file?")
    return data


def certificates(path: Path, most: int) -> list[x509.Certificate]:
    """What a PEM file holds: at least one. FleetError."""
    try:
        found = x509.load_pem_x509_certificates(_read(path))
    except ValueError:
        raise FleetError(f"{path} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)") from None
    if len(found) > most:
        raise FleetError(f"{path} holds {len(found)} certificates: at most {most}")
    return found


def private_key(path: Path) -> Ed25519PrivateKey:
    """FleetError."""
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except TypeError:
        raise FleetError(f"{path} is encrypted, and nobody is there to type its password: store it without") from None
    except ValueError:
        raise FleetError(f"{path} holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise FleetError(f"{path} holds a key that is not Ed25519; {ED25519_HINT}")
    return key


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (x509.ExtensionNotFound, ValueError):
        return certificate.version is x509.Version.v1


def _kind(certificate: x509.Certificate) -> str:
    return type(certificate.public_key()).__name__.removesuffix("PublicKey").removesuffix("Public") or "of another kind"


def _context(
    protocol: int,
    trusted: list[x509.Certificate],
    chain: list[x509.Certificate],
    private: Ed25519PrivateKey,
    files: FleetFiles,
) -> ssl.SSLContext:
    """TLS 1.3 and nothing else, both sides with a certificate."""
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # An intermediate may be all that is trusted: a fleet's own below a CA that others use too.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # connections live for hours: a ticket costs memory, and lets an old certificate in
    try:
        context.load_verify_locations(cadata=b"".join(c.public_bytes(serialization.Encoding.DER) for c in trusted))
        _load_chain(context, chain, private)
    except ssl.SSLError as error:
        raise FleetError(f"{files.certificate}, {files.key}, {files.ca}: OpenSSL refuses them: {error}") from None
    return context


def _load_chain(context: ssl.SSLContext, chain: list[x509.Certificate], private: Ed25519PrivateKey) -> None:
    """From memory: the files may have changed since they were read. Python takes a path only, so give it one."""
    pem = b"".join(c.public_bytes(serialization.Encoding.PEM) for c in chain) + private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    fd = os.memfd_create("p2pd-certificate", os.MFD_CLOEXEC)
    try:
        os.write(fd, pem)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _try(accepting: ssl.SSLContext, calling: ssl.SSLContext, files: FleetFiles) -> None:
    """Meet ourselves: what peers with the same CAs will say of this certificate. FleetError, but not for its time."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        calling.wrap_bio(to_client, to_server, server_side=False),
        accepting.wrap_bio(to_server, to_client, server_side=True),
    ]
    try:
        for side in (sides[0], sides[1], sides[0], sides[1]):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLCertVerificationError as error:
        if error.verify_code not in (EXPIRED, NOT_YET_VALID):
            raise FleetError(f"{files.certificate}: {_remedy(error, files)}") from None
    except ssl.SSLError as error:
        raise FleetError(f"{files.certificate}, {files.key}: no handshake succeeds with them: {error}") from None


def _remedy(error: ssl.SSLCertVerificationError, files: FleetFiles) -> str:
    if error.verify_code in NO_ISSUER:
        return (
            f"no CA in {files.ca} signed it; if there is an intermediate CA between them, its certificate "
            "belongs behind the node's own in the same file"
        )
    if error.verify_code == WRONG_PURPOSE:
        return "its extended key usage must allow both server and client authentication, or be left out"
    return f"would be refused by the fleet: {error.verify_message}"
