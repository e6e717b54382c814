"""mDNS packets from anybody on the link: another node as its records say, or nothing.

The first byte says whether the rest is a whole packet, or an instance's TXT record.
"""

from __future__ import annotations

import ipaddress

import zeroconf
from zeroconf import DNSIncoming

from p2pd.discovery.mdns import SERVICE_TYPE, TEXT_MAX, VIEW_MAX, _View, nearest, read_service

_NETWORKS = [ipaddress.ip_interface("10.0.0.1/24"), ipaddress.ip_interface("fd00::1/64")]
_ID = "ab" * 20


def check(data: bytes) -> None:
    if data[:1] <= b"\x7f":
        _text_record(data[1:])
        return
    view = _View("me", 60.0)
    for record in DNSIncoming(data[1:]).answers():
        if isinstance(record, zeroconf.DNSPointer):
            view.heard(record.alias, record.ttl == 0, 1.0)
    assert len(view.entries) <= VIEW_MAX


def _text_record(text: bytes) -> None:
    info = zeroconf.ServiceInfo(
        SERVICE_TYPE, f"{_ID}.{SERVICE_TYPE}", port=9581, properties=text, parsed_addresses=["10.0.0.7", "fe80::1"]
    )
    found = read_service(info, "fleet", _NETWORKS)
    if found is None:
        return
    assert found.node_id.hex() == _ID
    assert found.host == nearest(["10.0.0.7", "fe80::1"], _NETWORKS)
    for part in (found.name, found.zone):
        assert part.isprintable() and len(part.encode()) <= TEXT_MAX
