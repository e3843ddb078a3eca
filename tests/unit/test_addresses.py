"""The private-address guard: every way to write a host is one form, and what leads inside is not public."""

import threading
from collections.abc import Sequence

import pytest

from comfypin.addresses import (
    HostInvalid,
    HostNotPublic,
    HostUnknown,
    is_link_local,
    is_public,
    normalize_host,
    resolve_host,
    resolve_public,
)


class Names:
    """A resolver that knows a few names, and counts how often it is asked."""

    def __init__(self, **known: Sequence[str]) -> None:
        self.known = {name.replace("_", "."): addresses for name, addresses in known.items()}
        self.asked: list[str] = []

    def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.known:
            raise OSError(-2, "Name or service not known")
        return self.known[host]


METADATA_FORMS = [
    "169.254.169.254", "169.254.169.254.", "①⑥⑨.②⑤④.①⑥⑨.②⑤④", "１６９．２５４．１６９．２５４",
    "169。254。169。254", "169｡254｡169｡254",
    "2852039166", "0xa9fea9fe", "0XA9FEA9FE", "025177524776", "169.254.43518", "169.16689662", "0xa9.0xfe.0xa9.0xfe",
    "0251.0376.0251.0376", "0251.254.0xa9.254", "169.254.169.254", "１６９.254.169.254", "169.254.169\u00ad.254",
    "𝟙𝟞𝟡.𝟚𝟝𝟜.𝟙𝟞𝟡.𝟚𝟝𝟜", "¹⁶⁹.254.169.254", "⓪xa9fea9fe", "0ｘa9fea9fe",
]  # fmt: skip


@pytest.mark.parametrize("text", METADATA_FORMS)
def test_every_way_to_write_an_ipv4_address_is_one_form(text: str) -> None:
    assert normalize_host(text) == "169.254.169.254"
    with pytest.raises(HostNotPublic):
        resolve_public(text, 80, resolver=Names())


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("127。0。0。1", "127.0.0.1"), ("127.1", "127.0.0.1"), ("0", "0.0.0.0"), ("0x", "0.0.0.0"),
        ("127.0.0.1", "127.0.0.1"),
        ("EXAMPLE.com.", "example.com"), ("ⓔⓧⓐⓜⓟⓛⓔ.com", "example.com"), ("bücher.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"), ("my_host", "my_host"), ("[::1]", "::1"), ("::1", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"), ("[FC00:0:0::1]", "fc00::1"), ("1.2.3.example", "1.2.3.example"),
        ("ｌｏｃａｌｈｏｓｔ", "localhost"), ("lo\u00adcalhost", "localhost"), ("x" * 63 + ".example",
        "x" * 63 + ".example"),
    ],
)  # fmt: skip
def test_a_host_has_one_form(text: str, host: str) -> None:
    assert normalize_host(text) == normalize_host(host) == host


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a..b", "256.0.0.1", "1.2.3.4.5", "1.2.3.08", "0x100000000", "4294967296", "1.2.3.256",
     "a.1", "1..2", "a b",
     "a/b", "a\\b", "a@b", "a#b", "a?b", "a%00b", "%31%32%37.0.0.1", "a\tb", "a\nb", "℀.example", "ａ／ｂ",
     "ａ＠ｂ", "[::1", "::1]",
     "[fe80::1%eth0]", "fe80::1%25eth0", "[::1%lo]", "[v1.x]", "[127.0.0.1]", "[::１]", "-", "-a", "a-.b", "x" * 254,
     "127.0.0.1:80", "xn--\u2260.example\u2488"],
)  # fmt: skip
def test_what_is_not_a_host_is_refused(text: str) -> None:
    with pytest.raises(HostInvalid):
        normalize_host(text)


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "127.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1",
     "::", "fe80::1",
     "fc00::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "224.0.0.1",
     "::10.0.0.1", "64:ff9b:1::a00:1", "::ffff:0:10.0.0.1", "fec0::1", "2001:0:53aa:64c::1", "3fff::1",
     "255.255.255.255",
     "192.0.2.1", "198.18.0.1", "240.0.0.1", "ff02::1", "192.88.99.1", "2001:db8::1", "fe80::1%eth0", "100::1",
     "2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:127.0.0.1", "2001:0:5db8:d822::f5ff:fffe"],
)  # fmt: skip
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::5db8:d822", "2002:5db8::"]
)
def test_public_addresses_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1%eth0", "64:ff9b::a9fe:a9fe", "::169.254.169.254",
     "2002:a9fe:a9fe::", "2001:0:5db8:d822::5601:5601", "2606:4700::5efe:a9fe:a9fe"],
)  # fmt: skip
def test_metadata_addresses_are_seen_in_every_form(address: str) -> None:
    assert is_link_local(address)


def test_an_address_is_not_asked_of_the_resolver() -> None:
    names = Names()
    assert resolve_host("[2606:2800:220:1:0::1]", 80, resolver=names) == ("2606:2800:220:1::1",)
    assert names.asked == []


def test_a_name_is_asked_for_once_in_its_one_form() -> None:
    names = Names(shop_example=["93.184.216.34", "2606:2800:220:1::1"])
    assert resolve_public("ＳＨＯＰ。example.", 443, resolver=names) == ("93.184.216.34", "2606:2800:220:1::1")
    assert names.asked == ["shop.example"]


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    with pytest.raises(HostNotPublic):
        resolve_public("two.example", 443, resolver=Names(two_example=["93.184.216.34", "127.0.0.1"]))


@pytest.mark.parametrize("addresses", [None, []])
def test_a_host_without_addresses_is_unknown(addresses: Sequence[str] | None) -> None:
    names = Names() if addresses is None else Names(no_example=addresses)
    with pytest.raises(HostUnknown):
        resolve_host("no.example", 443, resolver=names)


def test_a_resolver_that_hangs_is_not_waited_for() -> None:
    released = threading.Event()

    class Hangs:
        def resolve(self, host: str, port: int) -> Sequence[str]:
            released.wait(60)
            return ["93.184.216.34"]

    try:
        with pytest.raises(TimeoutError):
            resolve_public("slow.example", 443, resolver=Hangs(), within_s=0.01)
    finally:
        released.set()
