"""Every damaged or hostile shard ends in a DataError that names it; nothing it names is opened."""

import gzip
import io
import random
import tarfile

import pytest
from image_files import encoded, photo

from model.data.pictures import open_pictures
from model.errors import DataError

PNG = encoded(photo(), "PNG")


def tar(path, members, tar_format=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=tar_format) as archive:
        for name, data, *changes in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in dict(*changes).items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([], "holds no pictures"),
        ([("notes.txt", b"x")], "one picture was wanted for key 'notes' .*, 0 came \\(txt\\)"),
        ([("a.json", b"{}"), ("b.png", PNG)], "for key 'a' .*, 0 came"),
        ([("a.png", PNG), ("a.jpg", PNG)], "for key 'a' .*, 2 came \\(jpg, png\\)"),
        ([("a.png", PNG), ("a.png", PNG)], "a.png comes twice"),
        ([("a.png", PNG), ("./a.png", PNG)], "a.png comes twice"),
        ([("a.png", PNG), ("b.png", PNG), ("a.json", b"{}")], "key 'a' comes twice .* between"),
        ([("a.png", b"")], "a.png .* has 0 bytes"),
        ([("a.png", PNG), ("a.json", b"{")], "a.json .* is no JSON"),
        ([("a.png", PNG), ("a.json", b"[" * 100_000)], "a.json .* is no JSON"),
        ([("a.png", PNG), ("a.json", b"\xff")], "a.json .* is no JSON"),
        ([("a.png", PNG), ("a.json", b"[]")], "no JSON object"),
        ([("a.png", PNG), ("a.json", b'{"source": "s\\ud800"}')], "a.json .* no text in UTF-8"),
        ([("a.png", PNG), ("a.json", b'{"a": [{"\\udfff": 1}]}')], "a.json .* no text in UTF-8"),
        ([("a.png", PNG), ("a.json", b'{"label": true}')], "no text and no whole number"),
        ([("a.png", PNG), ("a.json", b'{"label": [1]}')], "no text and no whole number"),
        ([("a.png", PNG), ("a.json", b'{"label": "\\n"}')], "cannot be printed"),
        ([("a.png", PNG), ("a.cls", b"\x00")], "cannot be printed"),
        ([("a.png", PNG), ("a.json", b" " * (1 << 20) + b"{}")], "more than 1048576 bytes"),
        ([("../a.png", PNG)], "'../a.png' .* leads outside"),
        ([("/etc/a.png", PNG)], "leads outside"),
        ([("x/../../a.png", PNG)], "leads outside"),
        ([("x\\a.png", PNG)], "leads outside"),
        ([("new\nline.png", PNG)], "cannot be printed"),
        ([("a.png", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})], "not followed"),
        ([("b.png", PNG), ("a.png", b"", {"type": tarfile.LNKTYPE, "linkname": "b.png"})], "link"),
        ([("a.png", b"", {"type": tarfile.FIFOTYPE})], "no regular file"),
        ([("a.png", b"", {"type": tarfile.CHRTYPE})], "no regular file"),
    ],
)
def test_a_shard_with_a_strange_member_is_refused_by_name(tmp_path, members, words):
    path = tar(tmp_path / "train-000000.tar", members)
    with pytest.raises(DataError, match=words) as caught:
        open_pictures(tmp_path)
    assert str(path) in str(caught.value)


def test_a_sparse_member_is_refused_since_it_lies_in_pieces(tmp_path):
    data = b"1\n0\n600\n".ljust(512, b"\0") + b"A" * 600
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a.png",
               "GNU.sparse.realsize": "600"}  # fmt: skip
    tar(tmp_path / "a.tar", [("GNUSparseFile.0/a.png", data, {"pax_headers": headers})])
    with pytest.raises(DataError, match=r"'a.png' in .* no regular file"):
        open_pictures(tmp_path)


def test_a_key_in_two_shards_is_refused_and_both_are_named(tmp_path):
    tar(tmp_path / "train-000000.tar", [("a.png", PNG)])
    tar(tmp_path / "train-000001.tar", [("a.png", PNG)])
    with pytest.raises(DataError, match=r"key 'a' of .*train-000001.tar is in train-000000.tar"):
        open_pictures(tmp_path)


def test_a_compressed_shard_is_refused_with_what_to_do(tmp_path):
    path = tar(tmp_path / "a.tar", [("a.png", PNG)])
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match="looks gzip-compressed, unpack it once"):
        open_pictures(tmp_path)
    path.rename(tmp_path / "a.tar.gz")
    with pytest.raises(DataError, match="looks gzip-compressed, unpack it once"):
        open_pictures(tmp_path)


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_shard_cut_anywhere_is_refused(tmp_path, tar_format):
    names = ("a", "b" * 150, "c")
    path = tar(tmp_path / "a.tar", [(f"{name}.png", b"P" * 700) for name in names], tar_format)
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    for length in range(0, end, 128):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a\.tar"):
            open_pictures(tmp_path)
    path.write_bytes(whole[: end + 512])
    assert len(open_pictures(tmp_path)) == 3


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path):
    path = tar(tmp_path / "a.tar", [(f"{name}.png", PNG) for name in "abc"])
    data = bytearray(path.read_bytes())
    data[data.index(b"b.png") + 148] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="a header is damaged"):
        open_pictures(tmp_path)


def test_random_damage_ends_in_a_named_error_or_in_whole_samples(tmp_path):
    path = tar(tmp_path / "a.tar", [(f"{name}.png", PNG[:700]) for name in "abc"])
    whole = path.read_bytes()
    rng = random.Random(7)
    messages = []
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(3):
            data[rng.randrange(4 * 1024)] = rng.randrange(256)
        path.write_bytes(data)
        try:
            pictures = open_pictures(tmp_path)
        except DataError as error:
            messages.append(str(error))
        else:
            assert all(pictures[index].data for index in range(len(pictures)))
    assert all(str(path) in message for message in messages)
    assert 0 < len(messages) < 300


def test_a_shard_that_changes_under_us_is_noticed(tmp_path):
    path = tar(tmp_path / "a.tar", [("a.png", PNG)])
    pictures = open_pictures(tmp_path)
    tar(path, [("b.png", PNG * 2)])
    with pytest.raises(DataError, match="has changed since it was opened"):
        _ = pictures[0]
    path.unlink()
    with pytest.raises(DataError, match=r"a\.tar cannot be opened: No such file"):
        _ = pictures[0]
