import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from index_tools import MAX_BYTES, picture, write_folder

from index_builder.errors import SourceError
from index_builder.sources.base import id_problem
from index_builder.sources.open_source import name_of, open_source, open_sources


def read(path, max_bytes=MAX_BYTES):
    source = open_source(path, max_bytes=max_bytes)
    items = list(source.items())
    assert source.size in (None, len(items))
    return items


def good(items):
    return {item.id: item.data for item in items if item.problem is None}


def bad(items):
    return {item.path: item.problem.code for item in items if item.problem is not None}


def test_a_folder_is_read_recursively_and_sorted_without_hidden_files(tmp_path):
    for name in ("b.png", "a/z.png", "a/y/x.png", ".hidden.png", ".git/config", "a/.DS_Store"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    items = read(tmp_path)
    assert [item.id for item in items] == ["a/y/x.png", "a/z.png", "b.png"]
    assert good(items)["a/z.png"] == b"a/z.png"


def test_links_are_followed_inside_the_folder_only(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "sub").mkdir(parents=True)
    outside.mkdir()
    (root / "real.png").write_bytes(b"inside")
    (outside / "secret.png").write_bytes(b"outside")
    (root / "alias.png").symlink_to("real.png")
    (root / "leak.png").symlink_to(outside / "secret.png")
    (root / "dangling.png").symlink_to("nowhere.png")
    (root / "loop.png").symlink_to("loop.png")
    (root / "sub" / "up").symlink_to(root)
    (root / "leaks").symlink_to(outside)
    items = read(root)
    assert good(items) == {"real.png": b"inside", "alias.png": b"inside"}
    assert bad(items) == {"leak.png": "link", "dangling.png": "missing", "loop.png": "link"}


def test_a_folder_reached_by_a_link_is_read(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"1")
    (tmp_path / "link").symlink_to("real")
    assert good(read(tmp_path / "link")) == {"a.png": b"1"}


def test_pipes_and_large_files_are_named_and_never_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "just.png").write_bytes(b"x" * 100)
    (tmp_path / "over.png").write_bytes(b"x" * 101)
    items = read(tmp_path, max_bytes=100)
    assert bad(items) == {
        "pipe.png": "special_file",
        "huge.png": "image_bytes",
        "over.png": "image_bytes",
    }
    assert list(good(items)) == ["just.png"]


def test_names_that_cannot_be_ids_are_quarantined_readably(tmp_path):
    for name in (b"latin\xe9.png", b"new\nline.png", "fine \u00e9\u4e2d.png".encode()):
        (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    items = read(tmp_path)
    assert set(bad(items).values()) == {"unsafe_name"}
    assert list(good(items)) == ["fine \u00e9\u4e2d.png"]
    for item in items:
        item.path.encode()


@given(st.text(max_size=20))
def test_an_id_survives_every_place_it_goes_to_or_is_refused(text):
    import numpy as np  # noqa: PLC0415

    if id_problem(text) is None:
        assert text.encode().decode() == text
        assert np.array([text, "longer " * 9])[0] == text


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_picture_is_a_collection_of_one_whatever_it_is_called(tmp_path, file_format):
    (tmp_path / "one.dat").write_bytes(picture(3, file_format=file_format))
    assert list(good(read(tmp_path / "one.dat"))) == ["one.dat"]


def test_several_pictures_are_one_collection_and_no_two_have_one_name(tmp_path):
    paths = [tmp_path / "a/x.png", tmp_path / "b/y.png", tmp_path / "b/x.png"]
    for number, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture(number))
    found = list(open_sources(paths[:2], max_bytes=MAX_BYTES).items())
    assert list(good(found)) == ["x.png", "y.png"]
    with pytest.raises(SourceError, match=r"a/x\.png and .*b/x\.png have one name"):
        open_sources(paths, max_bytes=MAX_BYTES)
    with pytest.raises(SourceError, match="nowhere is no picture"):
        open_sources([paths[0], tmp_path / "nowhere"], max_bytes=MAX_BYTES)
    assert name_of(paths) == f"{paths[0]} and 2 more"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", "path,colour\na.png,red\n./sub/b.png,\n"),
        ("m.jsonl", '{"path": "a.png", "colour": "red"}\n{"path": "sub/b.png", "colour": ""}'),
    ],
)
def test_a_list_without_ids_gives_those_a_folder_would(tmp_path, name, text):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.png").write_bytes(b"A")
    (tmp_path / "sub" / "b.png").write_bytes(b"B")
    items = read(tmp_path / name) if (tmp_path / name).write_text(text) else []
    assert good(items) == {"a.png": b"A", "sub/b.png": b"B"}
    assert [item.metadata for item in items] == [{"colour": "red"}, {"colour": ""}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", "id,path,colour\n\u00e9,a.png,red\n2,sub/b.png,\n"),
        ("m.CSV", "\ufeffpath,colour,id\r\na.png,red,\u00e9\r\nsub/b.png,,2\r\n"),
        (
            "m.jsonl",
            '{"id": "\u00e9", "path": "a.png", "colour": "red"}\n\n'
            '{"id": 2, "path": "sub/b.png", "metadata": {"colour": ""}}',
        ),
    ],
)
def test_a_manifest_gives_ids_and_metadata(tmp_path, name, text):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.png").write_bytes(b"A")
    (tmp_path / "sub" / "b.png").write_bytes(b"B")
    (tmp_path / name).write_text(text, encoding="utf-8")
    items = read(tmp_path / name)
    assert good(items) == {"\u00e9": b"A", "2": b"B"}
    assert [item.metadata for item in items] == [{"colour": "red"}, {"colour": ""}]


def test_missing_files_and_links_of_a_manifest_are_quarantined(tmp_path):
    (tmp_path / "outside.png").write_bytes(b"secret")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "leak.png").symlink_to("../outside.png")
    (tmp_path / "m" / "list.csv").write_text("id,path\n1,nothing.png\n2,leak.png\n")
    items = read(tmp_path / "m" / "list.csv")
    assert bad(items) == {"nothing.png": "missing", "leak.png": "link"}
    reasons = [item.problem.reason for item in items if item.problem is not None]
    assert reasons == [
        "list.csv, line 2: there is no such file: wanted a path from the list's folder down, "
        "like cats/1.jpg",
        "list.csv, line 3: a link that leads outside the collection",
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "", "a header line with path"),
        ("m.csv", "id,file\n1,a.png\n", "a header line with path"),
        ("m.csv", "id,path,id\n1,a.png,2\n", "each name once"),
        ("m.csv", "id,path\n1\n", "line 2: wanted 2 values"),
        ("m.csv", "id,path\n1,a,b\n", "line 2: wanted 2 values"),
        ("m.csv", "id,path\n1,a\n1,b\n", "line 3: id '1' is a duplicate of line 2"),
        ("m.csv", "id,path\n,a\n", "line 2: wanted a value for 'id'"),
        (
            "m.csv",
            "id,path\n1,../a\n",
            "line 2: path '../a' leaves the list's folder: wanted a path",
        ),
        ("m.csv", "id,path\n1,b/../../a\n", "leaves the list's folder"),
        ("m.csv", "id,path\n1,/etc/passwd\n", "line 2: path '/etc/passwd' is absolute: wanted a"),
        ("m.csv", 'id,path\n1,"a', "cannot be read as CSV"),
        ("m.csv", b"id,path\n1,\xff\n", "cannot be read as CSV in UTF-8"),
        ("m.csv", "id,path\n1," + "a" * 200_000 + "\n", "cannot be read as CSV"),
        ("m.csv", "path\na\n./a\n", "line 3: id 'a' is a duplicate of line 2"),
        ("m.jsonl", '{"id": null, "path": "a"}', "line 1: wanted a value for 'id'"),
        ("m.jsonl", '{"path": 3}', "line 1: id and path must be text"),
        ("m.jsonl", '{"id": "1"}', "line 1: wanted a value for 'path'"),
        ("m.jsonl", "[1]", "line 1: wanted a JSON object"),
        ("m.jsonl", '{"id": "1", "path": "a"}\n{', "line 2: cannot be read as a JSON object"),
        ("m.jsonl", '{"id": "1", "path": "a", "x": NaN}', "not JSON compliant"),
        ("m.jsonl", '{"id":"0","path":"a"}\n{"id":"1","path":"a","s":1e999}', "line 2: cannot"),
        (
            "m.jsonl",
            '{"id": "1", "path": "a", "s": [{"t": -1e999}]}',
            "not JSON compliant",
        ),
        ("m.jsonl", '{"id": "1", "path": "a", "id": "2"}', "key 'id' comes twice"),
        ("m.jsonl", '{"id": "1", "path": "a", "m": {"x": 1, "x": 1}}', "key 'x' comes twice"),
        ("m.jsonl", '{"id": "1", "path": "a", "s": "\\ud800"}', "surrogates not allowed"),
        ("m.jsonl", '{"id": true, "path": "a"}', "id and path must be text"),
        ("m.jsonl", '{"id": ["1"], "path": "a"}', "id and path must be text"),
        ("m.jsonl", '{"id": "\\ud800", "path": "a"}', "surrogates not allowed"),
        ("m.jsonl", '{"id": "a\\u0000", "path": "a"}', "control characters"),
        ("m.jsonl", '{"id": "a", "path": "b\\u0000"}', "leaves the list's folder"),
        ("m.jsonl", "[" * 100_000, "cannot be read as a JSON object"),
        ("m.jsonl", '{"id": "' + "a" * 5000 + '", "path": "a"}', "1 to 4096 bytes"),
    ],
)
def test_a_wrong_manifest_is_refused_before_anything_is_built(tmp_path, name, text, message):
    raw = text if isinstance(text, bytes) else text.encode()
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(SourceError) as refusal:
        open_source(tmp_path / name, max_bytes=MAX_BYTES)
    assert message in str(refusal.value)
    assert name in str(refusal.value)


def test_what_is_no_collection_is_refused(tmp_path):
    with pytest.raises(SourceError, match=f"no folder, archive, list or picture at {tmp_path}"):
        open_source(tmp_path / "nothing", max_bytes=MAX_BYTES)
    (tmp_path / "file").write_bytes(b"neither")
    with pytest.raises(SourceError, match=r"a list named \.csv or \.jsonl$"):
        open_source(tmp_path / "file", max_bytes=MAX_BYTES)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="neither a folder nor a regular file"):
        open_source(tmp_path / "pipe", max_bytes=MAX_BYTES)


def csv_items(tmp_path, header, *lines):
    write_folder(tmp_path, 1)
    path = tmp_path / "list.csv"
    path.write_text("\n".join([f"path,{header}", *(f"0000.png,{line}" for line in lines)]))
    return [item.metadata for item in open_source(path, max_bytes=MAX_BYTES).items()]


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), (" -0.5 ", -0.5), ("1E3", 1000.0), ("12345678901234567890", 12345678901234567890)],
)
def test_a_number_in_a_csv_is_one_where_the_header_says_so(tmp_path, text, value):
    (found,) = csv_items(tmp_path, "n:number,n2,a:b", f"{text},{text},1")
    assert found == {"n": value, "n2": text, "a:b": "1"}
    assert type(found["n"]) is type(value)


def test_a_boolean_in_a_csv_is_one_and_nothing_is_null(tmp_path):
    (found,) = csv_items(tmp_path, "a:bool,b:bool,c:bool,d:number", "true,False,,")
    assert found == {"a": True, "b": False, "c": None, "d": None}


@pytest.mark.parametrize(
    ("header", "line", "words"),
    [
        ("n:number", "x", "wanted a number, got 'x'"),
        ("n:number", "0x1", "wanted a number"),
        ("n:number", "NaN", "wanted a number"),
        ("n:number", "1e999", "wanted a number"),
        ("n:number", "٣", "wanted a number"),
        ("n:number", "9" * 5000, "wanted a number"),
        ("b:bool", "1", "wanted true or false, got '1'"),
        ("n,n:number", "1,1", "each name once"),
        ("n:int", "1", "a column's type is :number or :bool, got 'n:int'"),
        ("n:Boolean", "yes", "a column's type is :number or :bool, got 'n:Boolean'"),
    ],
)
def test_a_value_that_is_not_what_the_header_says_is_refused_by_name(tmp_path, header, line, words):
    with pytest.raises(SourceError, match=words):
        csv_items(tmp_path, header, line)
