import socket

import pytest

from service.errors import UnsafeBindingError
from service.http.listen_address import check_binding, is_loopback

LOOPBACK = ["127.0.0.1", "127.8.9.10", "127.1", "::1", "::ffff:127.0.0.1", "localhost"]
OPEN = ["0.0.0.0", "0", "::", "", "::ffff:0.0.0.0", "10.0.0.1", "192.168.1.1", "8.8.8.8",
        "2001:db8::1", "fe80::1", "a..b", "no-such-name.invalid", "x" * 300, "\x00"]  # fmt: skip


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_is_served_without_keys(host: str):
    check_binding(host, has_keys=False, may_lack_keys=False)


@pytest.mark.parametrize("host", OPEN)
def test_other_machines_are_served_with_keys_or_on_purpose_only(host: str):
    with pytest.raises(UnsafeBindingError, match="LIPSIM_ALLOW_NO_KEYS=true") as caught:
        check_binding(host, has_keys=False, may_lack_keys=False)
    assert "\n" not in str(caught.value)
    check_binding(host, has_keys=True, may_lack_keys=False)
    check_binding(host, has_keys=False, may_lack_keys=True)


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["127.0.0.1"], True),
        (["127.0.0.1", "::1"], True),
        (["127.0.0.1", "10.0.0.1"], False),
        ([], False),
    ],
)
def test_a_name_is_loopback_if_all_its_addresses_are(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str], expected: bool
):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: found)
    assert is_loopback("some-name") is expected
