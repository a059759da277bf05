import json

from paths import ROOT

from model.pixels.decode import DECODE_POLICY_VERSION, decode_image

GALLERY = ROOT / "examples" / "gallery"


def gallery_entries():
    lines = (GALLERY / "index.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_every_picture_of_the_gallery_is_listed_once_with_its_licence_and_decodes():
    entries = gallery_entries()
    listed = [entry["path"] for entry in entries]
    held = [p.relative_to(GALLERY).as_posix() for p in GALLERY.rglob("*.*") if p.parent != GALLERY]
    assert sorted(listed) == sorted(held)
    assert len({entry["id"] for entry in entries}) == len(entries)
    for entry in entries:
        assert entry["licence"] in {"public domain", "CC0-1.0"}
        assert entry["source"]
        decode_image((GALLERY / entry["path"]).read_bytes())


def test_every_query_decodes_and_names_an_original_of_the_gallery():
    ids = {entry["id"] for entry in gallery_entries()}
    queries = ROOT / "examples" / "queries"
    originals = json.loads((queries / "queries.json").read_text(encoding="utf-8"))
    assert sorted(originals) == sorted(p.name for p in queries.iterdir() if p.suffix != ".json")
    for name, original in originals.items():
        assert original in ids
        decode_image((queries / name).read_bytes())


def test_the_examples_stay_below_twelve_megabytes():
    files = [path for path in (ROOT / "examples").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12_000_000


def test_the_page_on_the_decode_policy_is_about_the_version_in_the_code():
    page = (ROOT / "docs" / "decode-policy.md").read_text(encoding="utf-8")
    assert f"`{DECODE_POLICY_VERSION}`" in page.splitlines()[0]
