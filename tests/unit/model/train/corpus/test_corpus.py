import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from corpus_tools import (
    contents,
    drawing,
    drawings_source,
    folder_of_drawings,
    folder_of_photos,
    photos_source,
    picture,
    recipe,
    samples,
    save,
)
from image_files import png
from PIL import Image
from typer.testing import CliRunner

from model.data.pictures import open_pictures
from model.errors import CorpusError
from model.train.__main__ import app
from model.train.corpus.build import build_corpus
from model.train.corpus.pictures import thumbnail

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    folder_of_drawings(root / "drawings")
    folder_of_photos(root / "photos")
    return root


@pytest.fixture(scope="module")
def tiny(tree):
    return recipe(
        drawings_source(tree / "drawings"),
        photos_source(tree / "photos", crops=2, min_side=64),
        composites=12,
        backgrounds=5,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory, tiny):
    out = tmp_path_factory.mktemp("corpus") / "out"
    return out, build_corpus(out, tiny, out.with_name("cache"), workers=1)


def run(*arguments):
    return CliRunner().invoke(app, ["corpus", *map(str, arguments)])


def test_the_same_inputs_make_the_same_bytes_whatever_the_number_of_workers(tmp_path, tiny, built):
    build_corpus(tmp_path / "again", tiny, tmp_path / "cache", workers=2)
    assert contents(tmp_path / "again") == contents(built[0])


def test_another_seed_draws_other_pictures_and_splits_alike(tmp_path, tiny, built):
    other = recipe(*tiny.sources, composites=12, backgrounds=5, seed=1)
    build_corpus(tmp_path / "other", other, tmp_path / "cache", workers=1)
    files = [
        {(fields["source"], fields["file"]) for _, fields, _, _ in samples(out, "test")}
        for out in (built[0], tmp_path / "other")
    ]
    assert files[0] == files[1]
    lists = [contents(out)["train/index.jsonl"] for out in (built[0], tmp_path / "other")]
    assert lists[0] != lists[1]


def test_every_picture_says_where_it_is_from(tree, built):
    out, _ = built
    folders = {"drawings": tree / "drawings", "photos": tree / "photos"}
    for split in SPLITS:
        for key, fields, _, _ in samples(out, split):
            assert key.startswith(f"{fields['kind']}-{fields['source']}-")
            if fields["source"] in folders:
                data = (folders[fields["source"]] / fields["file"]).read_bytes()
                assert fields["sha256"] == hashlib.sha256(data).hexdigest()
                expected = "CC0-1.0" if fields["source"] == "drawings" else "CC-BY-SA-4.0"
                assert fields["licence"] == expected


def test_labels_are_folders_and_our_own_reader_finds_them(built):
    out, manifest = built
    pictures = open_pictures(out, split="test")
    assert len(pictures) == manifest["counts"]["test"]["all"]
    labels = {
        label for key, label in zip(pictures.ids, pictures.labels, strict=True) if "drawings" in key
    }
    assert labels == {"animals", "tools"}
    assert all(pictures[number].pixels().ndim == 3 for number in range(len(pictures)))


def test_what_is_measured_on_is_kept_exactly_and_what_trains_is_small(tree, built):
    out, _ = built
    measured = [one for one in samples(out, "test") if one[1]["source"] == "drawings"]
    assert measured
    for _, fields, image, _ in measured:
        original = Image.open(tree / "drawings" / fields["file"])
        white = Image.new("RGBA", original.size, "white")
        white.alpha_composite(original)
        np.testing.assert_array_equal(np.asarray(image), np.asarray(white.convert("RGB")))
    assert all(max(image.size) <= 256 for _, _, image, _ in samples(out, "test"))
    assert all(max(image.size) <= 128 for _, _, image, _ in samples(out, "train"))


def test_crops_of_one_picture_share_no_pixel(built):
    out, _ = built
    boxes = {}
    for split in SPLITS:
        for _, fields, _, _ in samples(out, split):
            if fields["source"] == "photos":
                boxes.setdefault(fields["file"], []).append(fields["crop"])
    assert any(len(found) == 2 for found in boxes.values())
    for found in boxes.values():
        seen = np.zeros((300, 400), dtype=int)
        for left, top, right, bottom in found:
            seen[top:bottom, left:right] += 1
        assert seen.max() == 1


def test_what_is_only_measured_on_never_trains(built):
    out, manifest = built
    assert "photos" not in manifest["counts"]["train"]["by_source"]
    held_out = {one["sha256"] for one in manifest["test_files"]}
    for _, fields, _, _ in samples(out, "train"):
        assert fields["sha256"] not in held_out
        assert not held_out & set(fields.get("parts", []))


def test_composites_are_made_of_training_files_and_carry_their_licences(built):
    out, manifest = built
    assert manifest["counts"]["train"]["by_kind"]["composite"] == 12
    assert manifest["counts"]["train"]["by_kind"]["texture"] == 5
    training = [fields for _, fields, _, _ in samples(out, "train")]
    files = {fields["sha256"] for fields in training if fields["source"] == "drawings"}
    for fields in training:
        if fields["kind"] == "composite":
            assert fields["parts"]
            assert set(fields["parts"]) <= files
            assert fields["licence"] == "CC0-1.0"


def test_the_manifest_vouches_for_every_picture_licence_and_test_file(built):
    out, manifest = built
    assert json.loads((out / "corpus.json").read_text()) == json.loads(json.dumps(manifest))
    files = contents(out)
    lists = {name: data for name, data in files.items() if name.endswith("index.jsonl")}
    assert manifest["lists"] == {
        name: hashlib.sha256(data).hexdigest() for name, data in lists.items()
    }
    for split in SPLITS:
        for _, fields, _, data in samples(out, split):
            assert fields["image_sha256"] == hashlib.sha256(data).hexdigest()
    assert {"licences/drawings.txt", "licences/photos.txt"} <= files.keys()
    assert b"not to be handed on" in files["licences/photos.txt"]
    digests = [one["sha256"] for one in manifest["test_files"]]
    assert digests == sorted(set(digests))
    assert set(digests) == {fields["sha256"] for _, fields, _, _ in samples(out, "test")}


def test_no_picture_is_nearly_a_held_out_one(tmp_path):
    rng = np.random.default_rng(5)
    for number in range(30):
        pixels = picture(number, 80, 80)
        save(tmp_path / "in" / f"{chr(97 + number % 26)}{'x' * (number // 26)}.png", pixels)
        # Hardly another picture, under a name that falls elsewhere.
        other = np.clip(pixels + rng.integers(-3, 4, pixels.shape), 0, 255).astype(np.uint8)
        save(tmp_path / "in" / f"copy-of-{number}-as.png", other)
        save(tmp_path / "in" / f"size-of-{number}-as.png", other[::2, ::2], optimize=True)
    source = drawings_source(tmp_path / "in", min_side=32, cutouts=False)
    out = tmp_path / "out"
    manifest = build_corpus(out, recipe(source), tmp_path / "cache", workers=1)
    reasons = manifest["refused"]["by_reason"]
    assert reasons["near a held-out picture"] > 0
    assert reasons["near another test picture"] > 0
    kept = {
        split: [thumbnail(image).astype(float) / 255 for _, _, image, _ in samples(out, split)]
        for split in SPLITS
    }
    assert all(kept.values())
    everything = [(split, one) for split in SPLITS for one in kept[split]]
    for place, (_, one) in enumerate(everything):
        for _, other in everything[:place]:
            assert np.sqrt(((one - other) ** 2).mean()) > 0.045  # 0.05 less the loss of WebP


def test_the_same_file_and_the_same_pixels_count_once(tmp_path):
    pixels = picture(1)
    save(tmp_path / "in" / "one.png", pixels)
    (tmp_path / "in" / "two.png").write_bytes((tmp_path / "in" / "one.png").read_bytes())
    save(tmp_path / "in" / "three.png", pixels, compress_level=1)
    source = photos_source(tmp_path / "in", shares={"test": 1.0})
    manifest = build_corpus(tmp_path / "out", recipe(source), tmp_path / "cache", workers=1)
    assert manifest["counts"]["test"]["all"] == 1
    assert manifest["refused"]["by_reason"] == {"same file": 1, "same pixels": 1}


def test_what_cannot_be_used_is_counted_by_reason_and_stops_nothing(tmp_path):
    root = tmp_path / "in"
    save(root / "sound.png", picture(1))
    save(root / "long.png", picture(2, 50, 400))
    save(root / "small.png", picture(3, 20, 20))
    save(root / "flat.png", np.full((60, 60, 3), 99, np.uint8))
    (root / "cut.png").write_bytes((root / "sound.png").read_bytes()[:-40])
    (root / "text.png").write_text("not a picture")
    (root / "none.png").write_bytes(b"")
    # 231 million pixels in a few bytes.
    (root / "bomb.png").write_bytes(png(16000, 14464, 8, 2, b""))
    source = photos_source(root, shares={"test": 1.0})
    manifest = build_corpus(tmp_path / "out", recipe(source), tmp_path / "cache", workers=1)
    assert manifest["counts"]["test"]["all"] == 1
    assert manifest["refused"]["by_reason"] == {
        "damaged": 2,
        "flat": 1,
        "format": 1,
        "too long": 1,
        "too many pixels": 1,
        "too small": 1,
    }
    named = {one["path"]: one["detail"] for one in manifest["refused"]["first"]}
    assert "231424000" in named["bomb.png"]


def test_a_name_that_is_no_text_is_counted_and_stops_nothing(tmp_path):
    save(tmp_path / "in" / "sound.png", picture(1))
    data = (tmp_path / "in" / "sound.png").read_bytes()
    folder = os.fsencode(tmp_path / "in")
    os.mkdir(os.path.join(folder, b"\xe9t\xe9"))
    for name in (b"bad\xff\xfe.png", b"\xe9t\xe9/a.png"):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)
    done = run(tmp_path / "out", "--recipe", "none", "--source", f"folder:{tmp_path / 'in'}")
    assert done.exit_code == 0, done.output
    refused = json.loads((tmp_path / "out" / "corpus.json").read_text())["refused"]
    assert refused["by_reason"] == {"file name": 2}
    named = [one["path"] for one in refused["first"]]
    assert named == [r"bad\udcff\udcfe.png", r"\udce9t\udce9/a.png"]


def test_a_limit_keeps_that_many_of_a_source(tmp_path, tree):
    source = photos_source(tree / "photos", most=7)
    manifest = build_corpus(tmp_path / "out", recipe(source), tmp_path / "cache", workers=1)
    assert sum(manifest["counts"][split]["all"] for split in SPLITS) == 7
    assert manifest["refused"]["by_reason"] == {"above the limit": 13}


def test_nothing_is_left_of_a_build_that_failed(tmp_path, tree):
    source = photos_source(tree / "photos", licence_file="NO-SUCH-FILE")
    with pytest.raises(CorpusError, match=r"source photos: its licence file .*NO-SUCH-FILE"):
        build_corpus(tmp_path / "out", recipe(source), tmp_path / "cache", workers=1)
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_is_never_written_over(tmp_path, tiny):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(CorpusError, match="is there already"):
        build_corpus(tmp_path / "out", tiny, tmp_path / "cache", workers=1)
    assert contents(tmp_path / "out") == {"mine": b"keep"}


@pytest.mark.parametrize(
    ("sources", "fields", "words"),
    [
        ([], {}, "no sources"),
        (["empty"], {}, "source photos: no image file is under"),
        (["missing"], {}, "source photos: there is no folder"),
        (["flat"], {}, "no picture is left of 1 files: the first, flat.png, is refused: flat"),
        # Said before the folder is looked for.
        (["missing"], {"composites": 3}, "composites need training pictures with transparency"),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(tmp_path, sources, fields, words):
    (tmp_path / "empty").mkdir()
    save(tmp_path / "flat" / "flat.png", np.zeros((60, 60, 3), np.uint8))
    folder_of_photos(tmp_path / "photos", 2)
    chosen = recipe(*(photos_source(tmp_path / one) for one in sources), **fields)
    with pytest.raises(CorpusError, match=words):
        build_corpus(tmp_path / "out", chosen, tmp_path / "cache", workers=1)
    assert not (tmp_path / "out").exists()


def test_composites_of_pictures_that_turn_out_to_have_no_shape_are_refused(tmp_path):
    folder_of_photos(tmp_path / "photos", 2)
    chosen = recipe(photos_source(tmp_path / "photos", cutouts=True), composites=3)
    with pytest.raises(CorpusError, match="composites need training pictures with transparency"):
        build_corpus(tmp_path / "out", chosen, tmp_path / "cache", workers=1)


def test_a_folder_alone_makes_a_corpus_from_the_command_line(tmp_path):
    folder_of_drawings(tmp_path / "My Pictures", 60)
    out, hashes = tmp_path / "out", tmp_path / "hashes.txt"
    options = ("--recipe", "none", "--workers", 1, "--write-hashes", hashes, "--json")
    done = run(out, "--source", f"folder:{tmp_path / 'My Pictures'}", *options)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["counts"]["train"]["by_source"].keys() == {"my-pictures"}
    lines = [line.split("  ") for line in hashes.read_text().splitlines()]
    assert [len(line) for line in lines] == [3] * len(lines)
    for digest, source, path in lines:
        assert source == "my-pictures"
        data = (tmp_path / "My Pictures" / path).read_bytes()
        assert digest == hashlib.sha256(data).hexdigest()
    manifest = json.loads((out / "corpus.json").read_text())
    assert [line[0] for line in lines] == [one["sha256"] for one in manifest["test_files"]]


def test_a_cameras_folder_is_split_by_file_and_the_corpus_says_so(tmp_path):
    for number in range(60):
        save(tmp_path / "in" / f"IMG_{number:04}.png", picture(number))
    folder_of_photos(tmp_path / "named", 20)
    sources = ["--source", f"folder:{tmp_path / 'in'}", "--source", f"folder:{tmp_path / 'named'}"]
    done = run(tmp_path / "out", "--recipe", "none", "--workers", 1, *sources)
    assert done.exit_code == 0, done.output
    assert "warning" not in done.stderr
    manifest = json.loads((tmp_path / "out" / "corpus.json").read_text())
    groups = {one["name"]: one["group"] for one in manifest["recipe"]["sources"]}
    assert groups == {"in": "file", "named": "stem"}
    assert all("in" in manifest["counts"][split]["by_source"] for split in SPLITS)


def test_an_empty_split_is_named_on_stderr(tmp_path):
    folder_of_photos(tmp_path / "in", 3)
    done = run(
        tmp_path / "out", "--recipe", "none", "--workers", 1, "--source", f"folder:{tmp_path}/in"
    )
    assert done.exit_code == 0, done.output
    counts = json.loads((tmp_path / "out" / "corpus.json").read_text())["counts"]
    empty = [split for split in SPLITS if not counts[split]["all"]]
    assert empty
    named = [line.split()[3] for line in done.stderr.splitlines() if line.startswith("warning")]
    assert named == empty


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--recipe", "nonsense"], "no recipe nonsense; there are corpus-default"),
        (["--recipe", "none"], "the recipe has no sources"),
        (["--recipe", "none", "--source", "pictures"], "a source is written folder:PATH"),
        (["--recipe", "none", "--source", "folder:/no/such"], "there is no folder /no/such"),
    ],
)
def test_a_command_that_cannot_be_done_says_why_and_exits_1(tmp_path, arguments, words):
    done = run(tmp_path / "out", *arguments)
    assert done.exit_code == 1
    assert words in done.output
    assert "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def working(tmp_path):
    """A build at work, in a session of its own."""
    data = save(tmp_path / "in" / "first.png", drawing(0, 800)).read_bytes()
    for letter in "abcdefghijklmnop":
        (tmp_path / "in" / f"{letter}.png").write_bytes(data)
    command = [sys.executable, "-m", "model.train", "corpus", str(tmp_path / "out"),
               "--recipe", "none", "--source", f"folder:{tmp_path / 'in'}"]  # fmt: skip
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        for line in process.stderr:
            if line.startswith("reading files"):
                break
        time.sleep(0.3)
        yield process
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_work_and_leaves_nothing(tmp_path, working, number):
    if number == signal.SIGINT:
        os.killpg(working.pid, number)  # as a terminal does
    else:
        working.send_signal(number)
    said = working.stderr.read()
    assert working.wait(30) == 130
    assert "error: interrupted; nothing was written" in said
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
