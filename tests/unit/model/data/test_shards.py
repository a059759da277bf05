import gc
import hashlib
import json
import tarfile
import warnings

import numpy as np
import pytest
import webdataset
from image_files import encoded, photo

from model.data.pictures import check_pictures, open_pictures
from model.data.shards import ShardWriter, split_name
from model.errors import DataError

PNG = [encoded(photo(seed=seed), "PNG") for seed in range(12)]


def write(directory, split="train", count=12, **options):
    with ShardWriter(directory, split, **options) as writer:
        for number in range(count):
            writer.add(
                f"k{number:03}", PNG[number], "png", {"label": f"c{number % 3}", "n": number}
            )
    return writer.paths


def samples(paths):
    with warnings.catch_warnings():
        # The library leaves its files open.
        warnings.simplefilter("ignore", ResourceWarning)
        read = list(webdataset.WebDataset([str(path) for path in paths], shardshuffle=False))
        gc.collect()
    return read


def test_shards_are_read_back_by_number_with_labels_and_fields(tmp_path):
    write(tmp_path)
    pictures = open_pictures(tmp_path, split="train")
    assert list(pictures.ids) == [f"k{number:03}" for number in range(12)]
    assert list(pictures.labels) == [f"c{number % 3}" for number in range(12)]
    for number in (11, 0, 5):
        picture = pictures[number]
        assert picture.data == PNG[number]
        assert picture.fields == {"label": f"c{number % 3}", "n": number}
        assert np.array_equal(picture.pixels(), photo(seed=number))
    check_pictures(pictures)


def test_webdataset_reads_our_shards(tmp_path):
    paths = write(tmp_path, max_bytes=20_000)
    assert len(paths) > 2
    read = samples(paths)
    assert [sample["__key__"] for sample in read] == [f"k{number:03}" for number in range(12)]
    assert [sample["png"] for sample in read] == PNG
    assert [json.loads(sample["json"])["n"] for sample in read] == list(range(12))


def test_we_read_webdatasets_shards(tmp_path):
    with webdataset.ShardWriter(str(tmp_path / "train-%06d.tar"), maxcount=5, verbose=0) as writer:
        for number in reversed(range(12)):
            writer.write(
                {"__key__": f"n{number % 2}/a.dir/k{number}", "png": PNG[number], "cls": number % 4}
            )
    pictures = open_pictures(tmp_path)
    expected = sorted((f"n{number % 2}/a.dir/k{number}", number) for number in range(12))
    assert list(pictures.ids) == [key for key, _ in expected]
    assert list(pictures.labels) == [str(number % 4) for _, number in expected]
    assert [pictures[i].data for i in range(12)] == [PNG[number] for _, number in expected]


def test_we_name_samples_as_webdataset_does(tmp_path):
    names = ["a.png", "b/c.PNG", "x.y/d.png", "e.seg.png", "e.png", "__n__/f.png", "noext"]
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        (tmp_path / "p").write_bytes(PNG[0])
        for name in names:
            archive.add(tmp_path / "p", name)
    theirs = [
        (sample["__key__"], {kind for kind in sample if not kind.startswith("__")})
        for sample in samples([tmp_path / "t.tar"])
    ]
    ours = {}
    for key, kind in filter(None, map(split_name, names)):
        ours.setdefault(key, set()).add(kind)
    assert list(ours.items()) == theirs
    assert list(open_pictures(tmp_path / "t.tar").ids) == ["a", "b/c", "e", "x.y/d"]


def test_the_same_samples_make_the_same_bytes(tmp_path):
    first, second = write(tmp_path / "1", max_bytes=20_000), write(tmp_path / "2", max_bytes=20_000)
    digests = [
        [hashlib.sha256(p.read_bytes()).digest() for p in paths] for paths in (first, second)
    ]
    assert digests[0] == digests[1]
    with tarfile.open(first[0]) as archive:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in archive} == {(0, 0, 0, "", 0o644)}


def test_a_shard_ends_before_it_grows_too_large_unless_one_sample_is(tmp_path):
    paths = write(tmp_path, max_bytes=20_000)
    assert all(path.stat().st_size <= 20_000 + tarfile.RECORDSIZE for path in paths)
    assert [path.name for path in paths] == [f"train-{n:06}.tar" for n in range(len(paths))]
    assert len(write(tmp_path / "small", max_bytes=1)) == 12


def test_splits_are_told_apart_and_none_takes_all(tmp_path):
    for split, key in (("train", "a"), ("validation", "b"), ("test", "c")):
        with ShardWriter(tmp_path, split) as writer:
            writer.add(key, PNG[0], "png")
    assert list(open_pictures(tmp_path, split="val").ids) == ["b"]
    assert list(open_pictures(tmp_path, split="test").ids) == ["c"]
    assert list(open_pictures(tmp_path).ids) == ["a", "b", "c"]
    (tmp_path / "train-000000.tar").rename(tmp_path / "imagenet1k-train-0000.tar")
    assert list(open_pictures(tmp_path, split="train").ids) == ["a"]
    with pytest.raises(DataError, match=r"no shards other-\*.tar in "):
        open_pictures(tmp_path, split="other")


def write_twice(directory):
    with ShardWriter(directory, "train", 20_000) as writer:
        for number in range(24):
            writer.add(f"k{number % 12}", PNG[number % 12], "png")


def test_a_writer_left_by_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="was added before"):
        write_twice(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_shard_has_its_name_before_all_are_whole_and_remains_of_a_kill_are_swept(tmp_path):
    killed = ShardWriter(tmp_path, "train", 20_000)
    for number in range(12):
        killed.add(f"k{number}", PNG[number], "png")
    killed._close_shard()
    assert not list(tmp_path.glob("*.tar"))
    assert len(list(tmp_path.iterdir())) > 2
    write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train-000000.tar"]


def test_shards_of_an_earlier_run_are_not_mixed_with_new_ones(tmp_path):
    write(tmp_path)
    with pytest.raises(DataError, match=r"holds train-000000.tar already"):
        ShardWriter(tmp_path, "train")
    assert write(tmp_path, "test")


@pytest.mark.parametrize(
    "key",
    [
        "",
        "a.b",
        "../a",
        "/a",
        "a/",
        "./a",
        "a//b",
        ".a",
        "__a__/b",
        "a\nb",
        "a\\b",
        "\udc80",
        "a" * 5000,
    ],
)
def test_a_key_that_could_not_be_read_back_is_not_written(tmp_path, key):
    writer = ShardWriter(tmp_path, "train")
    with pytest.raises(DataError, match="a key that webdataset can read back was wanted, got"):
        writer.add(key, PNG[0], "png")
    assert writer.close() == []


def test_what_else_is_not_written(tmp_path):
    writer = ShardWriter(tmp_path, "train")
    writer.add("a" * 300, PNG[0], "png", {"label": "é"})
    for arguments, words in (
        (("b", PNG[0], "png", {"path": "\udc80"}), "UTF-8 was wanted for b.json"),
        (("a" * 300, PNG[0], "png"), "was added before"),
        (("b", PNG[0], "txt"), "got 'txt'"),
        (("b", PNG[0], "PNG"), "got 'PNG'"),
        (("b", b"", "png"), "0 bytes came"),
    ):
        with pytest.raises(DataError, match=words):
            writer.add(*arguments)
    writer.close()
    with pytest.raises(DataError, match="comes too late"):
        writer.add("c", PNG[0], "png")
    with pytest.raises(DataError, match="got 'a/b'"):
        ShardWriter(tmp_path, "a/b")
    picture = open_pictures(tmp_path)[0]
    assert picture.label == "é"
