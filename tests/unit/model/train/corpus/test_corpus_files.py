import struct
import zipfile

import pytest
from corpus_tools import picture, save
from image_files import encoded

from model.errors import CorpusError
from model.pixels.decode import decode_image
from model.train.corpus.files import list_files

EVERYTHING = ("**",)


def paths(root, include=EVERYTHING, exclude=()):
    return [entry.path for entry in list_files(root, include, exclude)]


@pytest.fixture
def tree(tmp_path):
    for name in ("top.png", "a/one.PNG", "a/b/two.jpg", "a/b/note.txt", "c/icons/x.png"):
        save(tmp_path / name, picture(1), format="PNG")
    return tmp_path


@pytest.mark.parametrize(
    ("include", "exclude", "found"),
    [
        (("**",), (), ["a/b/two.jpg", "a/one.PNG", "c/icons/x.png", "top.png"]),
        (("*",), (), ["top.png"]),
        (("**/*.png",), (), ["c/icons/x.png", "top.png"]),
        (("a/**",), (), ["a/b/two.jpg", "a/one.PNG"]),
        (("a/*",), (), ["a/one.PNG"]),
        (("**",), ("c/icons/**", "**/two.*"), ["a/one.PNG", "top.png"]),
        (("to?.png", "[a]/*"), (), ["top.png"]),
        ((), (), []),
    ],
)
def test_patterns_choose_paths(tree, include, exclude, found):
    assert paths(tree, include, exclude) == found


def test_links_are_passed_over(tree):
    (tree / "link.png").symlink_to(tree / "top.png")
    (tree / "linked").symlink_to(tree / "a")
    assert not any("link" in path for path in paths(tree))


def test_members_of_a_zip_are_paths_under_it(tmp_path):
    data = encoded(picture(2), "PNG")
    with zipfile.ZipFile(tmp_path / "game.pk3", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("textures/wall.png", data)
        archive.writestr("textures/sound.ogg", b"no picture")
        archive.writestr("textures/wall_nm.png", data)
    found = list_files(tmp_path, EVERYTHING, ("**/*_nm.*",))
    assert [entry.path for entry in found] == ["game.pk3/textures/wall.png"]
    assert found[0].read(len(data)) == data
    assert len(found[0].read(10)) == 11


def test_pictures_are_carved_out_of_resources_whole(tmp_path):
    plain = encoded(picture(3, 80, 80), "JPEG")
    thumb = encoded(picture(4, 16, 16), "JPEG")
    # A thumbnail in a segment of its own, with an end marker that is not the picture's.
    segment = b"\xff\xe5" + struct.pack(">H", 2 + len(thumb)) + thumb
    with_thumb = plain[:2] + segment + plain[2:]
    parts = [
        encoded(picture(5), "PNG"),
        encoded(picture(6), "WEBP", lossless=True),
        with_thumb,
        encoded(picture(7), "WEBP"),
    ]
    chance = b"\xff\xd8\xff\x00 sound \xff\xd8\xff\xe0\x00\x04ab\xff\xda\x00\x04 no frame \xff\xd9"
    cut = b"RIFF\xff\xff\xff\x7fWEBP"
    blob = b"qres" + b"\x00\x01\x02\x03".join([parts[0], chance, *parts[1:], cut])
    (tmp_path / "all.rcc").write_bytes(blob)
    found = list_files(tmp_path, EVERYTHING, ())
    assert [entry.path for entry in found] == [
        "all.rcc/all-0001.png",
        "all.rcc/all-0002.webp",
        "all.rcc/all-0003.jpg",
        "all.rcc/all-0004.webp",
    ]
    assert [entry.read(1 << 20) for entry in found] == parts
    for entry in found:
        assert decode_image(entry.read(1 << 20)).width in (72, 80)


def test_what_is_no_archive_or_folder_is_refused_by_name(tmp_path):
    (tmp_path / "bad.zip").write_bytes(b"no archive")
    with pytest.raises(CorpusError, match=r"bad.zip is no zip archive"):
        list_files(tmp_path, EVERYTHING, ())
    with pytest.raises(CorpusError, match="there is no folder"):
        list_files(tmp_path / "none", EVERYTHING, ())


def test_a_damaged_member_is_an_error_of_ours(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.png", encoded(picture(2), "PNG"))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[100] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(data)
    (entry,) = list_files(tmp_path, EVERYTHING, ())
    with pytest.raises(CorpusError, match=r"a.zip/x.png cannot be read"):
        entry.read(1 << 20)
    (tmp_path / "b.png").write_bytes(b"x")
    gone = list_files(tmp_path, ("b.png",), ())[0]
    (tmp_path / "b.png").unlink()
    with pytest.raises(CorpusError, match=r"b.png cannot be read"):
        gone.read(10)
