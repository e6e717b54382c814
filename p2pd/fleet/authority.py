"""A fleet's own CA in a directory, and the certificates that it issues. Each call makes files, and overwrites none.

For a fleet that has no CA yet. Those of any other CA serve as well: `p2pd.fleet.identity` says what they must be like.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from p2pd.fleet.identity import FleetError, certificates, private_key

CA_CERTIFICATE, CA_KEY = "ca.crt", "ca.key"
BACKDATED = timedelta(minutes=5)  # so that a node whose clock is a little behind takes it at once
ADDRESSES_MAX = 32
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")  # what [node] name allows
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DNS = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")


@dataclass(frozen=True)
class Issued:
    """What was made, and until when it is valid."""

    certificate: Path
    key: Path
    ends_at: datetime


def init_authority(directory: Path, name: str, days: int) -> Issued:
    """A new CA. FleetError."""
    _check_name(name)
    key = Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"p2pd fleet {name}")])
    builder = (
        _builder(subject, subject, key, key, days, None)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certifies=True), critical=True)
    )
    return _store(directory / CA_CERTIFICATE, directory / CA_KEY, builder.sign(key, None), key)


def issue(directory: Path, name: str, addresses: tuple[str, ...], days: int, out: Path) -> Issued:
    """A member's certificate and key, as NAME.crt and NAME.key in `out`. FleetError.

    `addresses`: IP addresses or DNS names by which others are told of it; a tracker needs them.
    """
    _check_name(name)
    if len(addresses) > ADDRESSES_MAX:
        raise FleetError(f"{len(addresses)} addresses are too many: at most {ADDRESSES_MAX}")
    names = [x509.DNSName(name), *(_alternative(address) for address in addresses)]
    authority, authority_key = _authority(directory)
    ends_at = authority.not_valid_after_utc
    if ends_at <= datetime.now(UTC):
        raise FleetError(
            f"{directory / CA_CERTIFICATE} ended on {ends_at:%Y-%m-%d}: make a new CA with `p2pd fleet init`, "
            "and let the nodes trust both for a while"
        )
    key = Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        _builder(subject, authority.subject, key, authority_key, days, ends_at)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(certifies=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return _store(out / f"{name}.crt", out / f"{name}.key", builder.sign(authority_key, None), key)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise FleetError(
            f"{name[:80]!r} is not a name: up to 63 letters, digits, dots, dashes and underscores, "
            "the first and the last a letter or digit"
        )


def _alternative(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address.strip("[]")))
    except ValueError:
        pass
    if not _DNS.fullmatch(address) or address.rpartition(".")[2].isdigit():
        raise FleetError(f"{address[:80]!r} is neither an IP address nor a DNS name; write it without a port")
    return x509.DNSName(address.lower())


def _authority(directory: Path) -> tuple[x509.Certificate, Ed25519PrivateKey]:
    if not (directory / CA_CERTIFICATE).exists():
        raise FleetError(f"there is no CA in {directory}: `p2pd fleet init --dir {directory}` makes one")
    found = certificates(directory / CA_CERTIFICATE, 1)[0]
    key = private_key(directory / CA_KEY)
    if found.public_key() != key.public_key():
        raise FleetError(f"{directory / CA_KEY} is not the key of {directory / CA_CERTIFICATE}")
    return found, key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: Ed25519PrivateKey,
    issuer_key: Ed25519PrivateKey,
    days: int,
    ends_at: datetime | None,
) -> x509.CertificateBuilder:
    """`ends_at`: the issuer's own end, which no certificate outlives."""
    begins = datetime.now(UTC).replace(microsecond=0) - BACKDATED
    ends = begins + BACKDATED + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(min(ends, ends_at) if ends_at else ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


def _usage(*, certifies: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certifies,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certifies,
        crl_sign=certifies,
        encipher_only=False,
        decipher_only=False,
    )


def _store(certificate: Path, key: Path, signed: x509.Certificate, private: Ed25519PrivateKey) -> Issued:
    """The key first, and both or none. FleetError."""
    for path in (certificate, key):
        if path.is_symlink() or path.exists():
            raise FleetError(f"{path} exists, and is not overwritten: move it away, or choose another directory")
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        certificate.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(key, pem, 0o600)
        try:
            _write_new(certificate, signed.public_bytes(serialization.Encoding.PEM), 0o644)
        except OSError:
            key.unlink()
            raise
    except OSError as error:
        raise FleetError(f"{error.filename or certificate} can't be made: {error.strerror}") from None
    return Issued(certificate, key, signed.not_valid_after_utc)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, mode)  # whatever the umask says
        file.write(data)
        file.flush()
        os.fsync(fd)
