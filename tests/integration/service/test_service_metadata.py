"""What a filter may ask about: the keys and values of the whole index, over HTTP."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
from index_tools import without_columns
from service_helpers import draw_picture, open_client, run_builder

import service.client.async_client as inner
from service.client import AsyncClient, Client, ProblemError
from service.settings import Settings

KINDS = ["cat", "dog", "cat", "<b>", "é", "cat"]
ROWS = [
    {
        "kind": kind,
        "year": [2001, 2.5, 2001, -3, 10**400, 2**63][number],
        "seen": number % 2 == 0,
        "tags": [["a", "b"], [], ["b", "b"], None, ["c"], "a"][number],
        "camera": {"name.of": f"n{number}"},
    }
    for number, kind in enumerate(KINDS)
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("metadata")
    lines = []
    for number, row in enumerate(ROWS):
        draw_picture(number).save(folder / f"{number}.png")
        lines.append(json.dumps({"path": f"{number}.png", "id": f"p{number}", **row}))
    (folder / "list.jsonl").write_text("\n".join(lines))
    for name in ("default", "older"):
        source = folder / "list.jsonl"
        run_builder("build", source, "--data-dir", folder / "data", "--index", name)
    without_columns(folder / "data", "older")
    with open_client(Settings(data_dir=folder / "data")) as opened:
        yield opened


def values(client: httpx.Client, key: str, index: str = "default", **options: object) -> dict:
    url = f"/v1/indexes/{index}/metadata/values"
    return client.get(url, params={"key": key, **options}).raise_for_status().json()


def held(answer: dict) -> dict[object, int]:
    return {one["value"]: one["items"] for one in answer["values"]}


@pytest.mark.parametrize("index", ["default", "older"])
def test_every_key_is_listed_as_a_filter_names_it(client: httpx.Client, index: str):
    url = f"/v1/indexes/{index}/metadata"
    first = client.get(url, params={"limit": 3}).json()
    rest = client.get(url, params={"limit": 3, "after": first["next"]}).json()
    assert first["keys"] + rest["keys"] == sorted(
        ["camera", "camera.name\\.of", "kind", "seen", "tags", "year"]
    )
    assert rest["next"] is None
    for key in first["keys"] + rest["keys"]:
        for one in values(client, key, index)["values"]:
            wanted = {"must": [{"key": key, "match": {"value": one["value"]}}]}
            body = json.dumps({"filter": wanted}).encode()
            listed = client.post(
                f"/v1/indexes/{index}/items/list",
                content=body,
                headers={"Content-Type": "application/json"},
            )
            assert len(listed.raise_for_status().json()["items"]) == one["items"], (key, one)


@pytest.mark.parametrize("index", ["default", "older"])
def test_values_keep_their_type_and_are_counted_by_item(client: httpx.Client, index: str):
    kinds = values(client, "kind", index)
    assert held(kinds) == Counter(KINDS)
    assert [one["value"] for one in kinds["values"]] == ["<b>", "cat", "dog", "é"]
    assert kinds["complete"] is True
    assert values(client, "seen", index)["values"] == [
        {"value": False, "items": 3},
        {"value": True, "items": 3},
    ]
    # What is beyond every float64 is no JSON.
    assert held(values(client, "year", index)) == {-3: 1, 2.5: 1, 2001: 2, 2.0**63: 1}
    assert held(values(client, "tags", index)) == {"a": 2, "b": 2, "c": 1}
    assert held(values(client, "camera", index)) == {}
    assert held(values(client, "nobody", index)) == {}


def test_many_values_are_narrowed_by_how_they_begin(client: httpx.Client):
    some = values(client, "camera.name\\.of", limit=4)
    assert (list(held(some)), some["complete"]) == (["n0", "n1", "n2", "n3"], False)
    assert held(values(client, "camera.name\\.of", prefix="n5")) == {"n5": 1}
    assert held(values(client, "year", prefix="2")) == {}


def test_what_is_not_there_or_no_option_is_refused(client: httpx.Client):
    for path in ("metadata", "metadata/values?key=a"):
        missing = client.get(f"/v1/indexes/nobody/{path}")
        assert (missing.status_code, missing.json()["code"]) == (404, "index_not_found")
    for wrong in ("", "?key=", "?key=a&limit=0", "?key=a&limit=1001", "?key=a&other=1"):
        refused = client.get(f"/v1/indexes/default/metadata/values{wrong}")
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_parameter"), wrong


@pytest.mark.parametrize("index", ["default", "older"])
def test_the_client_lists_keys_across_pages_and_values(
    client: httpx.Client, index: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inner, "_PAGE", 2)
    with Client(str(client.base_url)) as ours:
        keys = list(ours.metadata_keys(index))
        assert keys == ["camera", "camera.name\\.of", "kind", "seen", "tags", "year"]
        assert list(ours.metadata_keys(index, after="kind")) == keys[3:]
        for key in keys:
            found = ours.metadata_values(key, index).model_dump(mode="json", exclude_unset=True)
            assert found == values(client, key, index)
        some = ours.metadata_values("kind", index, prefix="d", limit=1)
        assert [(one.value, one.items) for one in some.values] == [("dog", 1)]
        assert some.complete
        with pytest.raises(ProblemError, match="invalid_parameter"):
            ours.metadata_values("kind", index, limit=1001)


def test_the_asynchronous_client_lists_the_same(client: httpx.Client):
    async def ask() -> tuple[list[str], list[object]]:
        async with AsyncClient(str(client.base_url)) as ours:
            keys = [key async for key in ours.metadata_keys()]
            found = await ours.metadata_values("kind", limit=2)
        assert not found.complete
        return keys, [one.value for one in found.values]

    keys, kinds = asyncio.run(ask())
    assert len(keys) == 6
    assert kinds == ["<b>", "cat"]
