"""A manifest's or index's own bytes: a type that fits a header, descriptors in the grammar, not more than the bound."""

from __future__ import annotations

import json

from p2pd.oci import DESCRIPTORS_MAX, DIGEST, descriptors_of, media_type_of, platform_manifests


def check(data: bytes) -> None:
    media_type = media_type_of(data)
    assert media_type is None or (media_type.isascii() and media_type.isprintable() and len(media_type) <= 255)
    found = list(descriptors_of(data))
    assert len(found) <= DESCRIPTORS_MAX
    for kind, descriptor in found:
        assert kind in ("manifest", "blob")
        assert DIGEST.fullmatch(descriptor.digest)
        assert 0 <= descriptor.size < 1 << 50
        assert len(descriptor.media_type) <= 255 and descriptor.media_type.isprintable()
        layer = {"digest": descriptor.digest, "size": descriptor.size, "mediaType": descriptor.media_type}
        again = json.dumps({"manifests" if kind == "manifest" else "layers": [layer]}).encode()
        assert list(descriptors_of(again)) == [(kind, descriptor)]
    manifests = [descriptor for kind, descriptor in found if kind == "manifest"]
    assert all(chosen in manifests for chosen in platform_manifests(data, "linux", "amd64"))
