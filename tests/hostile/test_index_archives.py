import bz2
import gzip
import io
import lzma
import random
import stat
import struct
import tarfile
import zipfile

import pytest
from index_tools import MAX_BYTES, picture

from index_builder.errors import SourceError
from index_builder.sources.open_source import open_source


def read(path):
    items = list(open_source(path, max_bytes=MAX_BYTES).items())
    good = {item.id: item.data for item in items if item.problem is None}
    bad = {item.path: item.problem.code for item in items if item.problem is not None}
    return good, bad


def tar_bytes(members, tar_format=tarfile.PAX_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tar_format) as archive:
        for name, data, changes in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in changes.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


PLAIN = [("a.png", b"A" * 600, {}), ("./sub//b.png", b"B", {}), ("sub/c.png", b"", {})]
SQUEEZED = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("squeeze", SQUEEZED)
@pytest.mark.parametrize(
    "tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]
)
def test_a_tar_is_known_by_its_content_and_read_without_unpacking(tmp_path, squeeze, tar_format):
    (tmp_path / "archive").write_bytes(SQUEEZED[squeeze](tar_bytes(PLAIN, tar_format)))
    assert read(tmp_path / "archive") == (
        {"a.png": b"A" * 600, "sub/b.png": b"B", "sub/c.png": b""},
        {},
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["archive"]


def test_hostile_members_of_a_tar_are_quarantined_by_name(tmp_path):
    members = [
        ("good.png", b"G", {}),
        ("../evil.png", b"E", {}),
        ("/etc/passwd", b"E", {}),
        ("x/../../evil.png", b"E", {}),
        ("C:evil.png", b"E", {}),
        ("back\\slash.png", b"E", {}),
        ("new\nline.png", b"E", {}),
        ("link.png", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("hard.png", b"", {"type": tarfile.LNKTYPE, "linkname": "good.png"}),
        ("device.png", b"", {"type": tarfile.CHRTYPE}),
        ("pipe.png", b"", {"type": tarfile.FIFOTYPE}),
        ("large.png", b"L" * (MAX_BYTES + 1), {}),
        ("good.png", b"again", {}),
        ("folder", b"", {"type": tarfile.DIRTYPE}),
        (".hidden/h.png", b"H", {}),
        ("__MACOSX/._good.png", b"H", {}),
        ("z" * 300 + ".png", b"Z", {}),
    ]
    (tmp_path / "t.tar.gz").write_bytes(gzip.compress(tar_bytes(members)))
    good, bad = read(tmp_path / "t.tar.gz")
    assert good == {"good.png": b"G", "z" * 300 + ".png": b"Z"}
    assert bad == {
        "../evil.png": "unsafe_name",
        "/etc/passwd": "unsafe_name",
        "x/../../evil.png": "unsafe_name",
        "C:evil.png": "unsafe_name",
        "back\\slash.png": "unsafe_name",
        "new\nline.png": "unsafe_name",
        "link.png": "link",
        "hard.png": "link",
        "device.png": "special_file",
        "pipe.png": "special_file",
        "large.png": "image_bytes",
        "good.png": "duplicate_id",
    }


@pytest.mark.parametrize("squeeze", SQUEEZED)
def test_a_tar_cut_anywhere_is_refused_or_whole(tmp_path, squeeze):
    members = [(f"{n}.png", picture(n), {}) for n in range(6)]
    whole = SQUEEZED[squeeze](tar_bytes(members))
    dice = random.Random(1)
    for cut in [dice.randrange(1, len(whole)) for _ in range(40)]:
        (tmp_path / "t").write_bytes(whole[:cut])
        try:
            good, bad = read(tmp_path / "t")
        except SourceError as refusal:
            assert str(refusal).startswith("t ")  # noqa: PT017
        else:  # only padding after the end of the last member was lost
            assert bad == {}
            assert list(good.values()) == [data for _, data, _ in members]


def test_a_damaged_header_in_the_middle_does_not_look_like_the_end(tmp_path):
    raw = bytearray(tar_bytes([(f"{n}.png", b"x" * 100, {}) for n in range(5)]))
    raw[2 * 1024 + 3] ^= 0xFF
    (tmp_path / "t.tar").write_bytes(raw)
    with pytest.raises(
        SourceError, match=r"t\.tar breaks off after 2 members: a header is damaged"
    ):
        read(tmp_path / "t.tar")


def test_a_tar_that_unpacks_to_far_more_than_pictures_can_is_a_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr("index_builder.sources.archives._FREE_BYTES", 1 << 20)
    bomb = tar_bytes([("zeros.png", bytes(64 << 20), {}), ("a.png", b"A", {})])
    (tmp_path / "t.tar.gz").write_bytes(gzip.compress(bomb))
    with pytest.raises(SourceError, match=r"unpacks to more than 200 times its size"):
        read(tmp_path / "t.tar.gz")


def test_a_tar_header_of_absurd_length_is_not_read_into_memory(tmp_path):
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    raw = header.tobuf(tarfile.GNU_FORMAT) + bytes(4096)
    (tmp_path / "t.tar").write_bytes(tar_bytes([("a.png", b"A", {})])[:1024] + raw)
    with pytest.raises(SourceError, match=r"t\.tar breaks off after 1 members"):
        read(tmp_path / "t.tar")


def test_a_chain_of_long_names_is_refused(tmp_path):
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 10
    link = header.tobuf(tarfile.GNU_FORMAT) + b"name\0".ljust(512, b"\0")
    (tmp_path / "t.tar").write_bytes(link * 5000)
    with pytest.raises(SourceError, match=r"t\.tar breaks off"):
        read(tmp_path / "t.tar")


def zip_info(name, kind=0):
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o644) << 16
    return info


def test_hostile_members_of_a_zip_are_quarantined_by_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "z", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.png", b"G")
        archive.writestr("folder/", b"")
        archive.writestr("../evil.png", b"E")
        archive.writestr("/etc/passwd", b"E")
        archive.writestr("large.png", bytes(MAX_BYTES + 1))
        archive.writestr(".hidden.png", b"H")
        archive.writestr(zip_info("link.png", stat.S_IFLNK), b"/etc/passwd")
        archive.writestr(zip_info("device.png", stat.S_IFCHR), b"")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("good.png", b"again")
    good, bad = read(tmp_path / "z")
    assert good == {"good.png": b"G"}
    assert bad == {
        "../evil.png": "unsafe_name",
        "/etc/passwd": "unsafe_name",
        "large.png": "image_bytes",
        "link.png": "link",
        "device.png": "special_file",
        "good.png": "duplicate_id",
    }


def changed_zip(tmp_path, change):
    with zipfile.ZipFile(tmp_path / "z", "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(3):
            archive.writestr(f"{n}.png", picture(n))
    raw = bytearray((tmp_path / "z").read_bytes())
    change(raw)
    (tmp_path / "z").write_bytes(raw)
    return tmp_path / "z"


def central(raw, member):
    at = -1
    for _ in range(member + 1):
        at = raw.index(b"PK\x01\x02", at + 1)
    return at


def test_an_encrypted_member_is_named(tmp_path):
    def encrypt(raw):
        raw[central(raw, 1) + 8] |= 1

    good, bad = read(changed_zip(tmp_path, encrypt))
    assert (list(good), bad) == (["0.png", "2.png"], {"1.png": "encrypted"})


def test_an_unknown_compression_and_a_wrong_checksum_are_named(tmp_path):
    def damage(raw):
        struct.pack_into("<H", raw, central(raw, 0) + 10, 99)
        raw[central(raw, 2) + 16] ^= 1

    good, bad = read(changed_zip(tmp_path, damage))
    assert (list(good), bad) == (["1.png"], {"0.png": "archive_member", "2.png": "archive_member"})


def test_a_member_that_lies_about_its_size_is_not_believed(tmp_path):
    def lie(raw):
        struct.pack_into("<I", raw, central(raw, 0) + 24, 10)

    good, bad = read(changed_zip(tmp_path, lie))
    assert bad == {"0.png": "archive_member"}
    assert list(good) == ["1.png", "2.png"]


def test_any_flipped_byte_of_a_zip_gives_pictures_problems_or_a_refusal(tmp_path):
    path = changed_zip(tmp_path, bytearray.reverse)
    path.write_bytes(path.read_bytes()[::-1])
    whole = path.read_bytes()
    pictures = {picture(n) for n in range(3)}
    dice = random.Random(2)
    for _ in range(300):
        raw = bytearray(whole)
        raw[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
        path.write_bytes(raw)
        try:
            good, _ = read(path)
        except SourceError:
            continue
        assert set(good.values()) <= pictures


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("inside.png", b"I")
    (tmp_path / "t").write_bytes(tar_bytes([("a.png", b"A", {}), ("z.zip", inner.getvalue(), {})]))
    good, _ = read(tmp_path / "t")
    assert list(good) == ["a.png", "z.zip"]
