"""Searches and lists with a filter, over HTTP: what an index of the matching items alone says."""

import base64
import csv
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import httpx
import pytest
from index_tools import CALIBRATION, without_columns
from service_helpers import draw_picture, encode, open_client, run_builder

from index_builder.build.writer import seal_calibration, writing
from index_builder.store import layout
from index_builder.store.manifest import read_manifest
from model.embedder import Embedder
from model.pixels.decode import DecodeLimits
from service.errors import ReplayError
from service.replay.replayer import Replayer
from service.settings import Settings

COUNT = 30
RED = {"must": [{"key": "colour", "match": {"value": "red"}}]}
OLD = {"must": [{"key": "year", "range": {"lt": 2000}}]}
QUERIES = [encode(draw_picture(seed)) for seed in (2, 3, 77)]


def write_list(folder: Path, name: str, rows: list[dict[str, str]]) -> Path:
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of red and blue pictures, one of the red alone, and one from before columns."""
    folder, directory = tmp_path_factory.mktemp("listed"), tmp_path_factory.mktemp("filters")
    rows = []
    for seed in range(COUNT):
        draw_picture(seed).save(folder / f"p{seed:02}.png")
        colour = "red" if seed % 3 == 0 else "blue"
        rows.append(
            {"path": f"p{seed:02}.png", "id": f"p{seed:02}", "colour": colour, "year:number": ""}
        )
        rows[-1]["year:number"] = str(1990 + seed) if seed else ""
    # Copies: the first id of a red entry is blue, and the other way round.
    rows.append({"path": "p03.png", "id": "a03", "colour": "blue", "year:number": "1970"})
    rows.append({"path": "p04.png", "id": "a04", "colour": "red", "year:number": "1970"})
    run_builder("build", write_list(folder, "all.csv", rows), "--data-dir", directory)
    red = [row for row in rows if row["colour"] == "red"]
    for name, chosen in (("red", red), ("older", rows)):
        source = write_list(folder, f"{name}.csv", chosen)
        run_builder("build", source, "--data-dir", directory, "--index", name)
    without_columns(directory, "older")
    paths = layout.index_paths(directory, "default")
    served = read_manifest(paths.version(layout.read_current(paths).version))
    with writing(paths):
        seal_calibration(paths, served, CALIBRATION)
    return directory


@pytest.fixture(scope="module")
def client(data_dir: Path) -> Iterator[httpx.Client]:
    with open_client(Settings(data_dir=data_dir)) as opened:
        yield opened


def ask(client: httpx.Client, image: bytes, wanted: object = None, **options: object) -> dict:
    form = {name: str(value) for name, value in options.items()}
    if wanted is not None:
        form["filter"] = json.dumps(wanted)
    answer = client.post("/v1/search", files={"image": image}, data=form)
    return answer.raise_for_status().json()


def listed(client: httpx.Client, wanted: object) -> list[str]:
    body = {"filter": wanted, "limit": 1000}
    page = client.post("/v1/indexes/default/items/list", json=body).raise_for_status().json()
    return [item["id"] for item in page["items"]]


def said(answer: dict) -> dict:
    """What two indexes of the same items say alike."""
    certificate = {
        name: value for name, value in answer["certificate"].items() if name != "meaning"
    }
    results = [{**result, "thumbnail": None} for result in answer["results"]]
    return {"results": results, "certificate": certificate}


@pytest.mark.parametrize("index", ["default", "older"])
@pytest.mark.parametrize("options", [{}, {"k": 3}, {"max_distance": 0.4}, {"k": 100}])
def test_a_filter_answers_what_an_index_of_what_matches_answers(client, index, options):
    for image in QUERIES:
        answer = ask(client, image, RED, index=index, **options)
        assert said(answer) == said(ask(client, image, index="red", **options))
        assert (answer["index"]["matching"], answer["index"]["matching_ids"]) == (11, 11)
        assert (answer["index"]["size"], answer["index"]["name"]) == (COUNT, index)
        assert "among the items that match the filter" in answer["certificate"]["meaning"]


def test_a_result_is_named_by_what_of_it_matches(client):
    red, blue, both = (
        ask(client, encode(draw_picture(3)), wanted, k=1)["results"][0]
        for wanted in (RED, {"must_not": RED["must"]}, {})
    )
    assert (red["id"], red["duplicates"], red["metadata"]["colour"]) == ("p03", [], "red")
    assert (blue["id"], blue["duplicates"], blue["metadata"]["year"]) == ("a03", [], 1970)
    assert (both["id"], both["duplicates"]) == ("a03", ["p03"])


def test_every_way_of_asking_gives_the_same_answer(client):
    image = QUERIES[0]
    form = ask(client, image, RED)
    body = {"image_base64": base64.b64encode(image).decode(), "filter": RED}
    sent = client.post("/v1/search", json=body).raise_for_status().json()
    raw = client.post(
        "/v1/search",
        content=image,
        params={"filter": json.dumps(RED)},
        headers={"Content-Type": "image/png"},
    )
    assert said(form) == said(sent) == said(raw.raise_for_status().json())
    for none in (None, {}):
        body["filter"] = none
        all_of_it = client.post("/v1/search", json=body).raise_for_status().json()
        assert said(all_of_it) == said(ask(client, image))
        assert ("matching" in all_of_it["index"]) == (none is not None)


def test_nothing_matches_one_matches_all_match(client):
    none = ask(client, QUERIES[0], {"must": [{"key": "colour", "match": {"value": "green"}}]})
    assert (none["results"], none["index"]["matching"]) == ([], 0)
    assert none["certificate"]["set_radius"] is None
    one = ask(client, QUERIES[0], {"must": [{"has_id": ["p09", "nobody"]}]})
    assert [result["id"] for result in one["results"]] == ["p09"]
    assert one["results"][0]["certified_radius"] is None
    assert one["certificate"]["set_radius"] is None
    known = {"must_not": [{"is_empty": {"key": "colour"}}]}
    assert said(ask(client, QUERIES[0], known, k=5)) == said(ask(client, QUERIES[0], k=5))


def test_searches_with_different_filters_at_once_do_not_mix(client):
    filters = [None, RED, OLD, {"must_not": RED["must"]}] * 3
    alone = [said(ask(client, QUERIES[0], wanted)) for wanted in filters]
    with ThreadPoolExecutor(12) as threads:
        together = list(threads.map(lambda wanted: said(ask(client, QUERIES[0], wanted)), filters))
    for one, other in zip(alone, together, strict=True):
        assert [r["id"] for r in one["results"]] == [r["id"] for r in other["results"]]


def test_a_verdict_is_the_same_with_a_filter(client):
    """Match is about the whole index: the entry that decides it may not pass."""
    matched = []
    for image in QUERIES:
        whole = ask(client, image, k=COUNT, operating_point="balanced")
        by_id = {one: r for r in whole["results"] for one in (r["id"], *r["duplicates"])}
        for result in ask(client, image, RED, k=8, operating_point="balanced")["results"]:
            for name in ("match", "match_margin", "match_statistic", "match_radius"):
                assert result[name] == pytest.approx(by_id[result["id"]][name], rel=1e-9)
            matched.append(result["match"])
    assert True in matched
    assert False in matched


@pytest.mark.parametrize("route", ["/v1/search", "/v1/indexes/default/items/list"])
@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"must": [{"key": "a", "match": {"value": None}}]}, "filter.must[0].match.value"),
        ({"must": [RED, {"key": "a", "range": {"gt": "1"}}]}, "filter.must[1].range.gt"),
        ([], "filter"),
        ("{", "filter"),
        ({"must": [{"has_id": ["x"] * 1001}]}, "filter.must[0].has_id"),
        ({"\ud800": 1}, "filter"),
    ],
)
def test_what_is_no_filter_is_refused_before_the_image_is_looked_at(client, route, wanted, field):
    body = {"filter": wanted} | ({"image_base64": "AAAA"} if route == "/v1/search" else {})
    answer = client.post(
        route, content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (400, "invalid_filter")
    assert [error["field"] for error in problem["errors"]] == [field]


def test_a_thousand_ids_are_a_filter(client):
    wanted = {"must": [{"has_id": [f"p{n:02}" for n in range(1000)]}]}
    body = {"filter": wanted, "limit": 1000}
    page = client.post("/v1/indexes/default/items/list", json=body).raise_for_status().json()
    assert [item["id"] for item in page["items"]] == [f"p{n:02}" for n in range(COUNT)]


@pytest.mark.parametrize("index", ["default", "older"])
def test_what_matches_is_listed_page_by_page(client, index):
    url, found, after = f"/v1/indexes/{index}/items", [], ""
    while after is not None:
        body = {"limit": 4, "after": after, "filter": RED}
        page = client.post(f"{url}/list", json=body).raise_for_status().json()
        assert (page["index"]["matching_ids"], page["index"]["version"][0]) == (11, "v")
        assert len(page["items"]) <= 4
        found += page["items"]
        after = page["next"]
    every = client.get(url, params={"limit": 1000}).json()["items"]
    assert found == [item for item in every if item["metadata"]["colour"] == "red"]
    whole = client.post(f"{url}/list", json={"limit": 1000}).json()["items"]
    assert whole == every
    missing = client.post("/v1/indexes/nobody/items/list", json={})
    assert (missing.status_code, missing.json()["code"]) == (404, "index_not_found")


@pytest.fixture
def replayer(data_dir: Path):
    replayer = Replayer(Embedder.load(), data_dir, DecodeLimits())
    yield replayer
    replayer.close()


@pytest.mark.parametrize(
    "options",
    [{}, {"k": 3, "trim": True}, {"max_distance": 0.4}, {"k": 8, "operating_point": "balanced"}],
)
def test_a_recorded_answer_with_a_filter_is_repeated(client, replayer, options):
    for image in QUERIES[:2]:
        for wanted in (RED, OLD):
            record = ask(client, image, wanted, include_audit=True, **options)
            assert record["audit"]["options"]["filter"] == wanted
            assert replayer.replay(record, image).differences == ()


def test_a_record_with_another_filter_does_not_hold(client, replayer):
    record = ask(client, QUERIES[0], RED, include_audit=True, k=5)
    for change, says in (
        (lambda r: r["audit"]["options"].update(filter=OLD), "is not in the answer"),
        (lambda r: r["audit"]["options"].update(filter=None), "matching"),
        (lambda r: r["index"].update(matching=10), "index.matching"),
        (lambda r: r["certificate"].update(set_radius=9.0), "set_radius"),
    ):
        forged = deepcopy(record)
        change(forged)
        assert says in " ".join(replayer.replay(forged, QUERIES[0]).differences)
    record["audit"]["options"]["filter"] = {"must": 1}
    with pytest.raises(ReplayError, match="no answer"):
        replayer.replay(record, QUERIES[0])


@pytest.mark.parametrize("wanted", [RED, {"must_not": [RED]}], ids=["of it", "not of it"])
def test_an_item_asks_among_the_others_that_match(client, wanted):
    """With verdicts, which leave the item itself out of the whole index as well."""
    item = client.get("/v1/indexes/default/items").json()["items"][0]["id"]
    options = {"item": item, "operating_point": "balanced", "filter": wanted, "k": 100}
    everything = client.post("/v1/search", json={**options, "filter": {}}).json()["results"]
    filtered = client.post("/v1/search", json=options).json()["results"]
    matching = set(listed(client, wanted))
    expected = [one for one in everything if matching & {one["id"], *one["duplicates"]}]
    assert len(filtered) == len(expected) > 3
    for one, other in zip(filtered, expected, strict=True):
        assert one["id"] in {other["id"], *other["duplicates"]} & matching
        assert one["match"] == other["match"]
        assert one["match_margin"] == pytest.approx(other["match_margin"], abs=1e-6)
        assert item not in {one["id"], *one["duplicates"]}


def test_a_tolerance_is_about_the_answer_with_the_filter(client):
    for image in QUERIES[:2]:
        first = ask(client, image, RED, k=1)["results"][0]
        form = {"filter": json.dumps(RED), "k": "1", "families": "noise"}
        answer = client.post("/v1/tolerance", files={"image": image}, data=form)
        statement = answer.raise_for_status().json()["statement"]
        assert statement["id"] == first["id"]
        assert statement["radius"] == pytest.approx(first["certified_radius"], rel=1e-6)
        assert answer.json()["index"]["matching_ids"] == len(listed(client, RED))


def test_a_list_takes_no_body_of_a_picture_s_size(client):
    url = "/v1/indexes/default/items/list"
    large = client.post(url, json={"after": "x" * 100_000})
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")


def test_lists_leave_room_for_searches(client):
    """Forty heavy lists at once, and each search in between comes soon all the same."""
    heavy = {"filter": {"must": [{"key": "colour", "match": {"any": list(range(1500))}}]}}
    with ThreadPoolExecutor(40) as pool:
        url = "/v1/indexes/default/items/list"
        lists = [pool.submit(client.post, url, json=heavy) for _ in range(40)]
        ask(client, QUERIES[0])
        waiting = sum(not one.done() for one in lists)
        assert {one.result().status_code for one in lists} == {200}
    assert waiting > 0, "the search waited for every list"
