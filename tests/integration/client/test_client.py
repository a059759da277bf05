"""The client asks a real service, and gives what plain HTTP gives."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import httpx
import pytest
from service_helpers import draw_picture, encode, open_client

import service.client.async_client as inner
from service.client import AsyncClient, Client, ProblemError, SearchArguments, ToleranceArguments
from service.keys.keys import Key, Scope, add_entry, digest_of, new_key
from service.schemas.common import Problem
from service.schemas.search import SearchOptions
from service.schemas.tolerance import ToleranceOptions
from service.settings import Settings

QUERY = encode(draw_picture(7, 100, 75))


@pytest.fixture(scope="module")
def ours(client: httpx.Client) -> Iterator[Client]:
    with Client(str(client.base_url)) as opened:
        yield opened


def without_times(answer: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in answer.items() if name != "timings_ms"}


def test_a_search_gives_the_answer_of_plain_http(client: httpx.Client, ours: Client):
    options = {"k": 3, "epsilon": 0.5, "include_vector": True, "trim": True, "max_distance": 1.5}
    wanted = client.post("/v1/search", params=options, content=QUERY, headers=inner._RAW).json()
    answer = ours.search(QUERY, **options)
    found = answer.model_dump(mode="json", exclude_unset=True)
    assert without_times(found) == without_times(wanted)
    assert len(answer.results) == 3
    assert answer.results[0].id == "p07-again.jpg"


def test_both_clients_and_both_kinds_of_image_get_the_same(
    client: httpx.Client, ours: Client, tmp_path: Path
):
    path = tmp_path / "query.png"
    path.write_bytes(QUERY)

    async def ask() -> list[list[str]]:
        async with AsyncClient(str(client.base_url)) as opened:
            answers = await asyncio.gather(
                opened.search(QUERY, k=5), opened.search(path, k=5), opened.search(str(path), k=5)
            )
        return [[one.id for one in answer.results] for answer in answers]

    wanted = [one.id for one in ours.search(path, k=5).results]
    assert asyncio.run(ask()) == [wanted] * 3


def test_the_options_are_those_of_the_service():
    hints = get_type_hints(SearchOptions)
    known = {name: hints[name] for name in SearchOptions.model_fields}
    assert get_type_hints(SearchArguments) == known
    ours, theirs = get_type_hints(ToleranceArguments), get_type_hints(ToleranceOptions)
    assert ours == {name: theirs[name] for name in ToleranceOptions.model_fields}


def test_tolerances_are_those_of_plain_http(client: httpx.Client, ours: Client):
    options = {"k": 3, "statement": "set", "chain": 2, "families": "contrast,noise"}
    wanted = client.post("/v1/tolerance", params=options, content=QUERY, headers=inner._RAW).json()
    found = ours.tolerance(QUERY, **options)
    found = found.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for answer in (wanted, found):
        del answer["timings_ms"], answer["cpu_s"]
    assert found == wanted
    assert found["families"]["contrast"]["to"] > 1.0


def test_two_images_are_compared_and_one_is_embedded(client: httpx.Client, ours: Client):
    other = encode(draw_picture(8))
    files = {"image_a": QUERY, "image_b": other}
    form = {"epsilon": "0.5", "threshold": "0.2"}
    wanted = client.post("/v1/similarity", files=files, data=form).json()
    found = ours.compare(QUERY, other, epsilon=0.5, threshold=0.2).model_dump(mode="json")
    assert without_times(found) == without_times(wanted)
    assert ours.compare(QUERY, other).match is None
    vector = ours.embed(QUERY)
    assert vector.vector == ours.search(QUERY, include_vector=True).query.vector


def test_items_are_listed_once_across_pages(
    ours: Client, gallery: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inner, "_PAGE", 7)
    wanted = sorted(path.name for path in gallery.iterdir())
    assert [item.id for item in ours.items()] == wanted
    assert [item.id for item in ours.items(after=wanted[9])] == wanted[10:]


def test_a_folder_is_searched_in_order_and_a_bad_file_costs_itself(ours: Client, tmp_path: Path):
    names = ["a/p03.png", "b.png", "c.png", "no.txt", "p05.png"]
    (tmp_path / "a").mkdir()
    for name, seed in (("a/p03.png", 3), ("p05.png", 5)):
        (tmp_path / name).write_bytes(encode(draw_picture(seed)))
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "c.png").write_bytes(QUERY[:500])
    (tmp_path / "no.txt").write_text("no picture")
    (tmp_path / ".hidden").write_bytes(QUERY)
    (tmp_path / "gone.png").symlink_to("nowhere")
    found = list(ours.search_many(tmp_path, k=1, concurrency=3))
    # Files beside folders come first, as the walk does.
    assert sorted(str(Path(str(one.image)).relative_to(tmp_path)) for one in found) == names
    ids = {Path(str(o.image)).name: o.answer.results[0].id for o in found if o.answer is not None}
    assert ids == {"p03.png": "p03.jpg", "p05.png": "p05.jpg"}
    codes = {Path(str(one.image)).name: one.error.code for one in found if one.error is not None}
    assert codes == {
        "b.png": "empty_image",
        "c.png": "undecodable_image",
        "no.txt": "unsupported_image_format",
    }
    (unreadable,) = ours.search_many([tmp_path / "gone.png"])
    assert isinstance(unreadable.error, FileNotFoundError)
    with pytest.raises(NotADirectoryError, match=r"p05\.png is no folder"):
        list(ours.search_many(tmp_path / "p05.png"))


@pytest.mark.parametrize("concurrency", [1, 3, 4])
def test_no_more_images_are_taken_than_are_under_way(ours: Client, concurrency: int):
    taken = 0

    def images() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(12):
            taken += 1
            yield QUERY

    for number, one in enumerate(ours.search_many(images(), concurrency=concurrency, k=1)):
        assert one.answer is not None
        assert taken <= number + concurrency


def test_many_images_share_a_request_and_what_was_too_late_is_asked_again(
    ours: Client, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    async def watched(self, kind, method, path, **parts):
        asked.append(path)
        found = await original(self, kind, method, path, **parts)
        if path.endswith("/batch"):  # As if the second one had waited too long for a worker.
            late = Problem(type="x", title="x", status=503, code="overloaded", detail="x")
            late = late.model_copy(update={"retry_after_s": 2})
            items = list(found.items)
            for place in (1, 2):
                items[place] = items[place].model_copy(
                    update={"status": 503, "answer": None, "problem": late}
                )
            return found.model_copy(update={"items": items})
        return found

    original = AsyncClient._ask
    monkeypatch.setattr(AsyncClient, "_ask", watched)
    images = [encode(draw_picture(seed)) for seed in range(8)]
    begun = time.monotonic()
    found = [one.answer for one in ours.search_many(images, concurrency=8, k=1)]
    assert time.monotonic() - begun >= 2.0
    ids = [answer and answer.results[0].id.replace("-again", "") for answer in found]
    assert ids == [f"p{seed:02}.jpg" for seed in range(8)]
    assert sorted(asked) == ["/v1/search"] * 4 + ["/v1/search/batch"] * 2


def test_a_service_that_takes_no_such_batch_is_asked_one_by_one(data_dir: Path):
    small = {"max_queue": 2, "max_batch_bytes": 130_000, "max_image_bytes": 100_000}
    images = [encode(draw_picture(seed, 100, 75)) for seed in range(8)]
    large = [QUERY, *(encode(draw_picture(seed, 300, 225)) for seed in range(2))]
    assert 2 * len(large[1]) > 130_000 > len(large[1])
    settings = Settings(data_dir=data_dir, **small)
    with open_client(settings) as plain, Client(str(plain.base_url)) as client:
        assert all(one.answer for one in client.search_many(images, concurrency=8))
        assert all(one.answer for one in client.search_many(large, concurrency=6))


def test_an_asynchronous_search_of_many_gives_the_same(client: httpx.Client, ours: Client):
    images = [encode(draw_picture(seed)) for seed in range(10)]

    async def ask() -> list[str]:
        async with AsyncClient(str(client.base_url)) as opened:
            found = [one async for one in opened.search_many(images, concurrency=3, k=1)]
        return [one.answer.results[0].id for one in found if one.answer is not None]

    wanted = [f"p{seed:02}.jpg" for seed in range(10)]
    assert [name.replace("-again", "") for name in asyncio.run(ask())] == wanted
    abandoned = ours.search_many(images, concurrency=3, k=1)
    next(abandoned)
    abandoned.close()
    assert ours.search(QUERY, k=1).results


def test_what_is_wrong_with_every_image_stops_many(ours: Client):
    with pytest.raises(ProblemError) as caught:
        list(ours.search_many([QUERY] * 3, index="nowhere"))
    assert (caught.value.status, caught.value.code) == (404, "index_not_found")


def test_a_refusal_carries_the_problem(ours: Client):
    with pytest.raises(ProblemError, match="invalid_parameter") as caught:
        ours.search(QUERY, k=0)
    error = caught.value
    assert (error.status, error.code) == (400, "invalid_parameter")
    assert error.title == error.problem.title
    assert [one.field for one in error.problem.errors or ()] == ["k"]
    assert error.problem.request_id


def test_a_key_opens_what_is_closed_without(data_dir: Path, tmp_path: Path):
    key, file = new_key(), tmp_path / "keys.json"
    add_entry(file, Key(name="bob", scope=Scope.READ, sha256=digest_of(key.encode())))
    with open_client(Settings(data_dir=data_dir, keys_file=file)) as plain:
        url = str(plain.base_url)
        with Client(url) as without, pytest.raises(ProblemError) as caught:
            without.search(QUERY)
        assert caught.value.code == "unauthorized"
        with Client(url, key) as opened:
            assert len(opened.search(QUERY, k=2).results) == 2
            assert next(opened.items()).id == "p00.jpg"


def test_a_program_that_closes_nothing_ends(client: httpx.Client):
    code = (
        "import sys; from service.client import Client; c = Client(sys.argv[1]);"
        "print(next(c.items()).id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(client.base_url)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("p00.jpg\n", "")


def test_the_client_needs_nothing_of_what_answers():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import service.client"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines()}
    assert "service.client.async_client" in loaded
    heavy = {"torch", "faiss", "numpy", "PIL", "fastapi", "starlette", "model", "index_builder"}
    assert not heavy & loaded
