"""Certificates of every kind that a member or a stranger may show, made in a moment."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from p2pd.fleet import FleetFiles, Identity

Private = Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def new_key(kind: str = "ed25519") -> Private:
    match kind:
        case "ecdsa":
            return ec.generate_private_key(ec.SECP256R1())
        case "rsa":
            return rsa.generate_private_key(65537, 2048)
    return Ed25519PrivateKey.generate()


@dataclass(frozen=True)
class Authority:
    """A CA; `chain`: what must be sent along for those who trust only the CA above."""

    certificate: x509.Certificate
    key: Private
    chain: tuple[x509.Certificate, ...] = ()

    @classmethod
    def make(
        cls, name: str = "ca", kind: str = "ed25519", above: Authority | None = None, days: float = 100
    ) -> Authority:
        key = new_key(kind)
        certificate = _sign(name, key, above.certificate.subject if above else None, above.key if above else key, days)
        return cls(certificate, key, (certificate, *above.chain) if above else ())

    def member(
        self,
        name: str = "node",
        *,
        kind: str = "ed25519",
        key: Private | None = None,
        days: float = 10,
        starts_in: float = -1,
        addresses: tuple[str, ...] = ("127.0.0.1",),
        usages: tuple[x509.ObjectIdentifier, ...] = BOTH,
    ) -> Member:
        """`days` from now on, valid from `starts_in` days from now on."""
        key = key or new_key(kind)
        certificate = _sign(
            name,
            key,
            self.certificate.subject,
            self.key,
            days,
            starts_in,
            leaf=True,
            addresses=addresses,
            usages=usages,
        )
        return Member(self, certificate, key)


@dataclass(frozen=True)
class Member:
    authority: Authority
    certificate: x509.Certificate
    key: Private

    def write(self, directory: Path, *trusted: Authority) -> FleetFiles:
        """As files, that trust these CAs; the one that signed it, if none is given."""
        directory.mkdir(parents=True, exist_ok=True)
        files = FleetFiles(directory / "ca.crt", directory / "node.crt", directory / "node.key")
        files.ca.write_bytes(b"".join(map(pem, (a.certificate for a in trusted or (self.authority,)))))
        files.certificate.write_bytes(b"".join(map(pem, (self.certificate, *self.authority.chain))))
        files.key.write_bytes(key_pem(self.key))
        files.key.chmod(0o600)
        return files

    def identity(self, directory: Path, *trusted: Authority) -> Identity:
        return Identity.load(self.write(directory, *trusted))


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: Private, password: bytes = b"") -> bytes:
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


def _sign(
    name: str,
    key: Private,
    issuer: x509.Name | None,
    issuer_key: Private,
    days: float,
    starts_in: float = -1,
    *,
    leaf: bool = False,
    addresses: tuple[str, ...] = (),
    usages: tuple[x509.ObjectIdentifier, ...] = (),
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=starts_in))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=not leaf, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if addresses:
        names = [x509.IPAddress(ipaddress.ip_address(a)) if a[0].isdigit() else x509.DNSName(a) for a in addresses]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
    return builder.sign(issuer_key, None if isinstance(issuer_key, Ed25519PrivateKey) else hashes.SHA256())
