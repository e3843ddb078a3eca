"""Guards private addresses: decides which hosts a stranger may make us connect to, and at which of their addresses.

Jobs name addresses (inputs, webhooks, buckets), and model downloads redirect to them. The address that is checked must
be the one that is connected to, so a host is first brought into one form (`normalize_host`: IDNA, Unicode's
compatibility forms, every way to write an IPv4 address) and resolved once; the caller connects only to addresses that
turned out to be public.

Hosts are parsed by https://url.spec.whatwg.org/#host-parsing, because attackers use every notation that it allows.
"""

import ipaddress
import re
import socket
import threading
import unicodedata
from collections.abc import Sequence
from typing import Protocol, TypeAlias
from urllib.parse import urlsplit, urlunsplit

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# IPv6 addresses that stand for the IPv4 one in their last 32 bits: RFC 6052 (NAT64), RFC 2765 (SIIT), and the
# IPv4-compatible ones of RFC 4291, 2.5.5.1.
_EMBEDS_IPV4 = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "::ffff:0:0:0/96", "::/96")))
# Not on the public internet, although Python's list does not say so: a network's own NAT64, site-local, documentation,
# 6to4's relays (RFC 7526).
_PRIVATE = tuple(map(ipaddress.ip_network, ("64:ff9b:1::/48", "fec0::/10", "3fff::/20", "192.88.99.0/24")))
# The interface identifiers of ISATAP (RFC 5214), whose last 32 bits are an IPv4 address, under any prefix.
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})

_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
# RFC 1035 allows 255 octets, of which the wire format takes two.
_LONGEST_HOST = 253
# The longest label of DNS (RFC 1035); the resolver would refuse a longer one later and less clearly.
_LONGEST_LABEL = 63


class HostInvalid(ValueError):
    """Raised if a text is not the name or address of a host."""


class HostUnknown(OSError):
    """Raised if a host has no address: the resolver does not know it."""


class HostNotPublic(Exception):
    """Raised if a host leads to a private address: loopback, a local network, a cloud's metadata service, ..."""

    def __init__(self, host_name: str) -> None:
        super().__init__(f"{host_name} leads to a private address")
        self.host = host_name


class HostResolver(Protocol):
    """Resolves names to addresses; tests bring their own."""

    def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host, the best first. Raises `OSError`."""


class SystemResolver:
    """Asks the resolver of this machine."""

    def resolve(self, host: str, port: int) -> Sequence[str]:
        # SOCK_STREAM, or each address would come once for every kind of socket.
        address_infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(entry[4][0]) for entry in address_infos))


def normalize_host(host_text: str) -> str:
    """Return the one form of a host, in ASCII: a lower-case name, dotted IPv4, or compressed IPv6 without brackets.

    `①⑥⑨.②⑤④.①⑥⑨.②⑤④`, `0xa9fea9fe`, `127。0。0。1` and `127.1` become the address that they stand for. Raises
    `HostInvalid`, for zone ids (`fe80::1%eth0`) too: they name an interface of this machine.
    """
    if ":" in host_text or host_text.startswith("["):
        return _normalize_ipv6(host_text)
    host_name = host_text if host_text.isascii() else _to_ascii(host_text)
    host_name = host_name.lower().removesuffix(".")
    is_too_long = len(host_name) > _LONGEST_HOST or max(map(len, host_name.split("."))) > _LONGEST_LABEL
    if is_too_long or not _HOST.fullmatch(host_name):
        raise HostInvalid(f"{host_text!r} is not the name of a host")
    # Resolvers take whatever ends in a number for an address, in the notations of C: octal, hexadecimal, fewer parts.
    return _ipv4_of(host_name) if _NUMBER.fullmatch(host_name.rpartition(".")[2]) else host_name


def _normalize_ipv6(host_text: str) -> str:
    inner_text = host_text[1:-1] if host_text.startswith("[") and host_text.endswith("]") else host_text
    try:
        # Python takes full-width digits for digits; other programs do not.
        if "%" in inner_text or not inner_text.isascii():
            raise ValueError(inner_text)
        return str(ipaddress.IPv6Address(inner_text))
    except ValueError:
        raise HostInvalid(f"{host_text!r} is not an IPv6 address") from None


def _to_ascii(host_text: str) -> str:
    """Return a name as resolvers expect it: compatibility forms resolved, other scripts as punycode."""
    # UTS 46 maps these full stops too; done here, so that an address with them never gets as far as punycode.
    folded_text = unicodedata.normalize("NFKC", host_text).replace("\u3002", ".")
    if folded_text.isascii():
        return folded_text
    import idna  # only names in other scripts need its tables

    try:
        return idna.encode(folded_text, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise HostInvalid(f"{host_text!r} is not the name of a host") from None


def _ipv4_of(host_name: str) -> str:
    """Return the dotted form of an address as `inet_aton` reads it; parts after the last one fill the other bytes."""
    dotted_parts = host_name.split(".")
    try:
        if len(dotted_parts) > 4 or not all(map(_NUMBER.fullmatch, dotted_parts)):
            raise ValueError(host_name)
        *leading_parts, last_part = map(_number_of, dotted_parts)
        if any(number > 255 for number in leading_parts) or last_part >= 256 ** (5 - len(dotted_parts)):
            raise ValueError(host_name)
    except ValueError:
        raise HostInvalid(f"{host_name!r} is not an IPv4 address") from None
    value = last_part + sum(number << 8 * (3 - index) for index, number in enumerate(leading_parts))
    return str(ipaddress.IPv4Address(value))


def _number_of(host_text: str) -> int:
    if host_text.startswith("0x"):
        return int(host_text[2:] or "0", 16)
    return int(host_text, 8 if host_text.startswith("0") and len(host_text) > 1 else 10)


def effective_address(address_text: str) -> IpAddress:
    """Return the address that packets go to in the end: the IPv4 address of an IPv6 one that only carries it."""
    address = ipaddress.ip_address(address_text.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    # `::` and `::1` are themselves.
    is_carrier = int(address) > 1 and any(address in network for network in _EMBEDS_IPV4)
    if is_carrier or (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(host_text: str) -> bool:
    """Return whether an address is on the public internet."""
    given_address, carried_address = ipaddress.ip_address(host_text.partition("%")[0]), effective_address(host_text)
    if isinstance(given_address, ipaddress.IPv6Address) and given_address.teredo is not None:
        return False  # a tunnel through whichever server the address names
    return (
        carried_address.is_global
        and not carried_address.is_multicast
        and not any(carried_address in network for network in _PRIVATE)
    )


def is_link_local(address_text: str) -> bool:
    """Return whether an address is link-local, like 169.254.169.254, where clouds serve credentials."""
    return effective_address(address_text).is_link_local


def resolve_host(
    host: str, port: int, *, resolver: HostResolver | None = None, within_s: float | None = None
) -> tuple[str, ...]:
    """Return the addresses of a host, in any notation. The resolver gets `within_s` seconds, if given.

    Raises `HostInvalid`, `HostUnknown`, `TimeoutError`.
    """
    normalized_host = normalize_host(host)
    found_addresses = _ask_resolver(resolver or SystemResolver(), normalized_host, port, within_s)
    if not found_addresses:
        raise HostUnknown(f"{normalized_host} has no address")
    return found_addresses


def resolve_public(
    host_name: str, port: int, *, resolver: HostResolver | None = None, within_s: float | None = None
) -> tuple[str, ...]:
    """Return the addresses of a host if all are public: those, and no others, may be connected to.

    Raises `HostNotPublic` if a single one is not, and what `resolve_host` raises.
    """
    found_addresses = resolve_host(host_name, port, resolver=resolver, within_s=within_s)
    # One private address is enough: whoever answers the name could choose it for the connection.
    if not all(map(is_public, found_addresses)):
        raise HostNotPublic(host_name)
    return found_addresses


def _ask_resolver(resolver: HostResolver, normalized_host: str, port: int, within_s: float | None) -> tuple[str, ...]:
    try:
        return (str(ipaddress.ip_address(normalized_host)),)
    except ValueError:
        pass
    answers: list[tuple[str, ...] | OSError | UnicodeError] = []

    def ask_resolver() -> None:
        try:
            answers.append(tuple(resolver.resolve(normalized_host, port)))
        except (OSError, UnicodeError) as error:
            answers.append(error)

    if within_s is None:
        ask_resolver()
    else:
        # The system's resolver cannot be told to stop, so a thread of its own waits for it as long as it takes.
        asking = threading.Thread(target=ask_resolver, name="resolve", daemon=True)
        asking.start()
        asking.join(max(0.0, within_s))
    if not answers:
        raise TimeoutError(f"the resolver did not answer for {normalized_host}")
    if isinstance(answers[0], tuple):
        return answers[0]
    raise HostUnknown(str(getattr(answers[0], "strerror", None) or answers[0])) from answers[0]


def hide_credentials(url: str) -> str:
    """Return a URL without the user name and token that it may carry."""
    url_parts = urlsplit(url)
    if not url_parts.scheme or "@" not in url_parts.netloc:
        return url
    return urlunsplit(url_parts._replace(netloc=url_parts.netloc.rpartition("@")[2]))
