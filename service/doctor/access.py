"""Who may ask: the keys and the address, by the very functions that refuse the start."""

from collections.abc import Iterator
from pathlib import Path

from service.doctor.findings import Finding, failed, ok, warning
from service.errors import KeysFileError, UnsafeBindingError
from service.keys.binding import check_binding, is_loopback
from service.keys.keys import read_keys
from service.keys.mounts import MOUNTED_FILE, is_mount_point


def check_keys(path: Path | None) -> Iterator[Finding]:
    """The keys file, where there is to be one, can be read and is sound."""
    if path is None:
        yield ok("none are set: whoever reaches the service may ask")
        return
    try:
        keys = read_keys(path)
    except KeysFileError as error:
        yield failed(
            str(error), "repair it, or make one as the service's user: `python -m service key NAME`"
        )
        return
    if is_mount_point(path):
        yield warning(f"{path} is a mount by itself", MOUNTED_FILE)
    if keys:
        yield ok(f"{path} holds {len(keys)}")
    else:
        yield warning(f"{path} holds none: nobody may ask", "`python -m service key NAME`")


def check_address(host: str, *, has_keys: bool, may_lack_keys: bool) -> Iterator[Finding]:
    """The address to listen on is one that may be served so."""
    try:
        check_binding(host, has_keys=has_keys, may_lack_keys=may_lack_keys)
    except UnsafeBindingError as error:
        yield failed(f"LIPSIM_HOST={host} without keys", str(error))
        return
    if is_loopback(host):
        yield ok(f"{host}: this machine alone")
    elif has_keys:
        yield ok(f"{host}: other machines too, with keys")
    else:
        yield ok(f"{host}: other machines too, without keys, as LIPSIM_ALLOW_NO_KEYS says")
