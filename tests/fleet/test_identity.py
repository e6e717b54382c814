"""What is an identity, whoever issued it; and for what is none, an error that names the file and the remedy."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from p2pd.fleet import FleetError, FleetFiles, Identity
from p2pd.fleet import identity as module
from tests.fleet.certificates import Authority, Member, key_pem, new_key, pem

CA = Authority.make("ca")
NODE = CA.member("node1")


def test_an_identity_of_our_kind(tmp_path: Path) -> None:
    identity = NODE.identity(tmp_path)
    assert identity.key.public == NODE.key.public_key().public_bytes_raw()
    assert [span.name for span in identity.chain] == ["CN=node1"]
    assert [span.name for span in identity.authorities] == ["CN=ca"]
    assert identity.ends_at == NODE.certificate.not_valid_after_utc.timestamp()


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_a_ca_of_any_kind_and_one_below_it(tmp_path: Path, kind: str) -> None:
    root = Authority.make("root", kind)
    below = Authority.make("below", kind, root)
    for number, (member, trusted) in enumerate(
        [(root.member(), root), (below.member(), root), (below.member(), below)]  # an intermediate may be all that is
    ):
        identity = member.identity(tmp_path / str(number), trusted)
        assert identity.chain[0].name == "CN=node"


def test_two_cas_while_one_replaces_the_other(tmp_path: Path) -> None:
    new = Authority.make("ca")  # by the same name
    old_identity = NODE.identity(tmp_path / "old", CA)
    both = NODE.identity(tmp_path / "both", CA, new)
    assert len(both.authorities) == 2
    assert both.trusts_all_of(old_identity)
    assert not old_identity.trusts_all_of(both)
    assert new.member().identity(tmp_path / "new", CA, new).trusts_all_of(both)
    assert not new.member().identity(tmp_path / "only", new).trusts_all_of(both)  # also if made in the same second


@pytest.mark.parametrize("member", [CA.member(days=-1, starts_in=-2), CA.member(starts_in=1)], ids=["ended", "early"])
def test_a_certificate_out_of_its_time_is_an_identity_all_the_same(tmp_path: Path, member: Member) -> None:
    """The node mirrors, says what is wrong, and takes a new one as soon as it is there."""
    assert member.identity(tmp_path).chain[0].name == "CN=node"


def _foreign(files: FleetFiles) -> None:
    files.ca.write_bytes(pem(Authority.make("other").certificate))


def _without_intermediate(files: FleetFiles) -> None:
    below = Authority.make("below", above=CA)
    member = below.member()
    files.certificate.write_bytes(pem(member.certificate))
    files.key.write_bytes(key_pem(member.key))


def _other_key(files: FleetFiles) -> None:
    files.key.write_bytes(key_pem(new_key()))


def _ecdsa(files: FleetFiles) -> None:
    member = CA.member(kind="ecdsa")
    files.certificate.write_bytes(pem(member.certificate))
    files.key.write_bytes(key_pem(member.key))


def _rsa_key(files: FleetFiles) -> None:
    files.key.write_bytes(key_pem(new_key("rsa")))


def _encrypted(files: FleetFiles) -> None:
    files.key.write_bytes(key_pem(NODE.key, b"password"))


def _node_as_ca(files: FleetFiles) -> None:
    files.ca.write_bytes(pem(NODE.certificate))


def _for_servers_only(files: FleetFiles) -> None:
    member = CA.member(usages=(module.x509.oid.ExtendedKeyUsageOID.SERVER_AUTH,))
    files.certificate.write_bytes(pem(member.certificate))
    files.key.write_bytes(key_pem(member.key))


def _swapped(files: FleetFiles) -> None:
    certificate, key = files.certificate.read_bytes(), files.key.read_bytes()
    files.certificate.write_bytes(key)
    files.key.write_bytes(certificate)


@pytest.mark.parametrize(
    ("spoil", "names", "words"),
    [
        (lambda f: f.ca.unlink(), "ca.crt", "can't be read: No such file"),
        (lambda f: f.ca.write_bytes(b""), "ca.crt", "holds no certificate in PEM form"),
        (lambda f: f.certificate.write_bytes(pem(NODE.certificate)[:100]), "node.crt", "holds no certificate"),
        (lambda f: f.certificate.write_bytes(b"x" * 300_000), "node.crt", "is larger than"),
        (lambda f: f.certificate.write_bytes(9 * pem(NODE.certificate)), "node.crt", "holds 9 certificates: at most 8"),
        (lambda f: f.key.write_bytes(b"x"), "node.key", "holds no private key in PEM form"),
        (_swapped, "node.crt", "holds no certificate in PEM form"),
        (_foreign, "node.crt", "no CA in .*ca.crt signed it"),
        (_without_intermediate, "node.crt", "intermediate .* belongs behind the node's own"),
        (_other_key, "node.key", "is not the key of .*node.crt"),
        (_ecdsa, "node.key", "not Ed25519; .*step-ca.*Vault.*cert-manager"),
        (_rsa_key, "node.key", "not Ed25519"),
        (_encrypted, "node.key", "is encrypted"),
        (_node_as_ca, "ca.crt", "CN=node1 is no CA"),
        (_for_servers_only, "node.crt", "must allow both server and client authentication"),
    ],
)
def test_what_is_no_identity(tmp_path: Path, spoil, names: str, words: str) -> None:
    files = NODE.write(tmp_path)
    spoil(files)
    with pytest.raises(FleetError, match=words) as caught:
        Identity.load(files)
    assert names in str(caught.value)


def test_a_certificate_of_another_kind_with_a_key_of_ours(tmp_path: Path) -> None:
    files = CA.member(kind="rsa").write(tmp_path)
    files.key.write_bytes(key_pem(NODE.key))
    with pytest.raises(FleetError, match=r"node\.crt: its key is RSA; it also signs vouchers"):
        Identity.load(files)


def test_a_directory_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="can't be read: Is a directory"):
        Identity.load(dataclasses.replace(NODE.write(tmp_path), ca=tmp_path))


def test_certificates_made_by_openssl(tmp_path: Path) -> None:
    """As step-ca, Vault and cert-manager make them, in form: another tool's files, text before the PEM, an ECDSA CA."""

    for line in (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=root -keyout r.key -out r.crt",
        "genpkey -algorithm ed25519 -out n.key",
        "req -new -key n.key -subj /CN=n -out n.csr",
        "x509 -req -in n.csr -CA r.crt -CAkey r.key -CAcreateserial -days 2 -text -out n.crt",
    ):
        subprocess.run(["openssl", *line.split()], cwd=tmp_path, check=True, capture_output=True)
    identity = Identity.load(FleetFiles(tmp_path / "r.crt", tmp_path / "n.crt", tmp_path / "n.key"))
    assert identity.chain[0].name == "CN=n"
