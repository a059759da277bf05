"""Whether an address may be listened on: without keys, by this machine alone."""

import ipaddress
import socket

from service.errors import UnsafeBindingError


def check_binding(host: str, *, has_keys: bool, may_lack_keys: bool) -> None:
    """Refuse to serve the network without keys, unless the operator says that they may be lacking.

    Raises:
        UnsafeBindingError: others than this machine could ask, and nobody needs a key.
    """
    if has_keys or may_lack_keys or is_loopback(host):
        return
    raise UnsafeBindingError(
        f"{host or 'every address'} can be reached from other machines and there are no keys: set "
        "LIPSIM_KEYS_FILE and make a key (python -m service key NAME), or set "
        "LIPSIM_ALLOW_NO_KEYS=true where a proxy asks who is there"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; a name does if all its addresses do.

    What cannot be resolved, and the empty host that stands for every address, does not.
    """
    if not host:
        return False
    try:
        # As binding itself resolves it: 0, 127.1 and other old spellings included.
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(_is_loopback_address(str(entry[4][0])) for entry in found)


def _is_loopback_address(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
