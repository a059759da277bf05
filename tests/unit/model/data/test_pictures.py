import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from image_files import encoded, photo
from listed_pictures import ListWriter

from model.data.pictures import Picture, PictureSet, check_pictures, evenly, open_pictures
from model.errors import DataError


def put(path, seed=0, file_format="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(photo(seed=seed), file_format))
    return path


def test_a_folder_is_read_in_the_order_of_its_paths_with_folders_as_labels(tmp_path):
    for seed, name in enumerate(["b/z.jpg", "b/deep/a.PNG", "a.webp", "B/a.png"]):
        put(tmp_path / name, seed)
    pictures = open_pictures(tmp_path)
    assert isinstance(pictures, PictureSet)
    assert list(pictures.ids) == ["B/a.png", "a.webp", "b/deep/a.PNG", "b/z.jpg"]
    assert list(pictures.labels) == ["B", None, "b/deep", "b"]
    assert len(pictures) == 4
    for index, name in enumerate(pictures.ids):
        picture = pictures[index]
        assert (picture.id, picture.label) == (name, pictures.labels[index])
        assert picture.data == (tmp_path / name).read_bytes()
    assert np.array_equal(pictures[3].pixels(), photo(seed=0))


def test_what_is_hidden_or_says_it_is_no_picture_is_passed_over(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / ".thumbnails/b.png")
    put(tmp_path / ".c.png")
    for name in ("readme.txt", "png", "labels.csv", "a.png.part"):
        (tmp_path / name).write_bytes(b"x")
    assert list(open_pictures(tmp_path).ids) == ["a.png"]


def test_imagenet_is_read_by_split_with_synsets_as_labels(tmp_path):
    for name in ("train/n01440764/n01440764_1.JPEG", "train/n02/x.JPEG", "val/n02/y.JPEG"):
        put(tmp_path / name, file_format="JPEG")
    train = open_pictures(tmp_path, split="train")
    assert list(train.ids) == ["n01440764/n01440764_1.JPEG", "n02/x.JPEG"]
    assert list(train.labels) == ["n01440764", "n02"]
    assert list(open_pictures(tmp_path, split="validation").ids) == ["n02/y.JPEG"]
    with pytest.raises(DataError, match=r"no folder test in .*"):
        open_pictures(tmp_path, split="test")


def test_a_picture_is_known_by_its_content_whatever_its_name_says(tmp_path):
    (tmp_path / "n02105855_2933.JPEG").write_bytes(encoded(photo(), "PNG"))
    (tmp_path / "old.bmp").write_bytes(encoded(photo(), "BMP"))
    pictures = open_pictures(tmp_path)
    check_pictures(pictures)
    assert all(np.array_equal(pictures[i].pixels(), photo()) for i in range(2))


def write_list(folder, *lines):
    (folder / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_list_names_the_pictures_of_its_folder_and_what_is_known_of_them(tmp_path):
    for seed, name in enumerate(["train/z.webp", "train/deep/a.webp", "train/unlisted.webp"]):
        put(tmp_path / name, seed)
    put(tmp_path / "test/m.webp", 3)
    write_list(
        tmp_path / "train",
        {"id": "b", "path": "deep/a.webp", "label": 7, "source": "stamps"},
        {"path": "z.webp", "sha256": "00"},
    )
    write_list(tmp_path / "test", {"id": "a", "path": "m.webp", "label": "cat"})
    train = open_pictures(tmp_path, split="train")
    assert list(zip(train.ids, train.labels, strict=True)) == [("b", "7"), ("z.webp", None)]
    assert [train[i].fields for i in range(2)] == [{"source": "stamps"}, {"sha256": "00"}]
    assert np.array_equal(train[0].pixels(), photo(seed=1))
    both = open_pictures(tmp_path)
    assert list(both.ids) == ["a", "b", "z.webp"]
    assert np.array_equal(both[0].pixels(), photo(seed=3))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["{}"], "line 1: an object with a path was wanted, got {}"),
        (['{"path": "a.png"}', "[1]"], "line 2: an object with a path was wanted"),
        (["path,label"], "line 1: no JSON"),
        (['{"path": "a.png", "id": "x"}', '{"path": "b.png", "id": "x"}'], "have the id 'x'"),
        ([], "no pictures in"),
    ],
)
def test_a_list_that_cannot_be_read_is_named_with_its_line(tmp_path, lines, words):
    (tmp_path / "index.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=words):
        open_pictures(tmp_path)


def test_places_are_spread_evenly_and_nothing_asked_means_all():
    assert evenly(10, 3) == [0, 3, 6]
    assert evenly(3, 10) == evenly(3, None) == evenly(3, 0) == [0, 1, 2]


def test_links_are_followed_and_a_folder_that_links_to_itself_ends(tmp_path):
    put(tmp_path / "elsewhere/x.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "n01").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    (root / "y.png").symlink_to(tmp_path / "elsewhere/x.png")
    assert list(open_pictures(root).ids) == ["n01/x.png", "y.png"]


def test_what_is_no_set_of_pictures_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"nothing is at .*missing"):
        open_pictures(tmp_path / "missing")
    with pytest.raises(DataError, match=r"no pictures in .*; files end in avif, bmp"):
        open_pictures(tmp_path)
    (tmp_path / "file").write_bytes(b"x" * 600)
    with pytest.raises(DataError, match=r"a folder of pictures was wanted, nothing is at .*file"):
        open_pictures(tmp_path / "file")
    put(tmp_path / "new\nline.png")
    with pytest.raises(DataError, match=r"'new\\nline.png' in .* cannot be printed"):
        open_pictures(tmp_path)


def test_a_file_that_vanished_and_one_that_is_huge_are_named(tmp_path):
    put(tmp_path / "gone.png")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(65 << 20)
    pictures = open_pictures(tmp_path)
    (tmp_path / "gone.png").unlink()
    for index, words in enumerate(["gone.png cannot be read: No such", "huge.png: .*67108864"]):
        with pytest.raises(DataError, match=words):
            pictures[index].pixels()


def test_a_bad_picture_is_named_before_a_run_starts(tmp_path):
    for number in range(30):
        put(tmp_path / f"{number:02}.png", number)
    check_pictures(open_pictures(tmp_path), workers=2)
    for number in range(3, 18):
        (tmp_path / f"{number:02}.png").write_bytes(b"damaged")
    done = []
    with pytest.raises(DataError, match=r"15 of 30 pictures of .* are bad") as caught:
        check_pictures(open_pictures(tmp_path), workers=2, advance=done.append)
    lines = str(caught.value).splitlines()
    assert [
        f"{number:02}.png" in line for number, line in zip(range(3, 13), lines[1:], strict=False)
    ]
    assert lines[1].startswith(f"  {tmp_path}/03.png: the content is plain text")
    assert lines[-1] == "  and 5 more"
    assert len(lines) == 12
    assert sum(done) == 30


def test_a_set_is_read_from_threads_and_from_another_process(tmp_path):
    with ListWriter(tmp_path / "shards", "train") as writer:
        for number in range(20):
            data = encoded(photo(seed=number), "PNG")
            put(tmp_path / f"folder/{number:02}.png", number)
            writer.add(f"{number:02}", data, "png")
    for name in ("folder", "shards"):
        pictures = open_pictures(tmp_path / name)
        again = pickle.loads(pickle.dumps(pictures))
        with ThreadPoolExecutor(4) as pool:
            read = list(pool.map(lambda i: (again[i % 20].id, again[i % 20].data), range(200)))  # noqa: B023
        assert read == [
            (pictures[i % 20].id, encoded(photo(seed=i % 20), "PNG")) for i in range(200)
        ]


def test_a_picture_made_in_memory_is_named_by_its_id():
    with pytest.raises(DataError, match=r"^some/id: an image was wanted, 0 bytes came"):
        Picture("some/id", None, b"").pixels()
