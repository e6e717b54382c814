"""What a manifest's own bytes may make others send on."""

from __future__ import annotations

import json

import pytest

from p2pd.oci import BLOB_TYPE, descriptors_of, media_type_of

DIGEST = "sha256:" + "a" * 64
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
BAD_TYPES = ["a/" + "b" * 128, "a/b\r\nx: y", "a/\ud800", "a/b; c", "", 5, None, ["a/b"]]


@pytest.mark.parametrize("stated", BAD_TYPES)
def test_a_type_that_no_header_can_hold_is_not_taken(stated: object) -> None:
    layer = {"digest": DIGEST, "size": 1, "mediaType": stated}
    body = json.dumps({"mediaType": stated, "config": {}, "layers": [layer]}).encode()
    assert media_type_of(body) == OCI_MANIFEST
    assert [descriptor.media_type for _, descriptor in descriptors_of(body)] == [BLOB_TYPE]


def test_a_type_is_taken_as_it_is() -> None:
    layer = {"digest": DIGEST, "size": 1, "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}
    body = json.dumps({"mediaType": OCI_MANIFEST, "layers": [layer]}).encode()
    assert media_type_of(body) == OCI_MANIFEST
    assert [descriptor.media_type for _, descriptor in descriptors_of(body)] == [layer["mediaType"]]
