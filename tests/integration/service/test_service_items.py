"""The items of an index, one by one and page by page, and how long their thumbnails may be kept."""

import httpx
import pytest


def test_items_and_thumbnails_are_served(client: httpx.Client):
    item = client.get("/v1/indexes/default/item", params={"id": "p07.jpg"}).json()
    assert {item["id"], *item["duplicates"]} == {"p07.jpg", "p07-again.jpg"}
    assert (item["width"], item["height"], item["format"]) == (160, 120, "JPEG")
    assert item["index"]["version"] == "v000001"
    response = client.get("/v1/indexes/default/thumbnail", params={"id": "p07.jpg"})
    assert response.headers["content-type"] == "image/jpeg"
    assert response.content[:3] == b"\xff\xd8\xff"
    # Whoever may see it may change, and so may the picture of an id.
    assert response.headers["cache-control"] == "private, no-cache"
    assert response.headers["vary"] == "Authorization, X-API-Key"
    linked = client.get(item["thumbnail"])
    assert linked.content == response.content
    assert linked.headers["cache-control"] == "private, max-age=31536000, immutable"
    other = client.get(item["thumbnail"].replace(item["sha256"], "0" * 64))
    assert other.headers["cache-control"] == "private, no-cache"
    for tag, status in (
        (response.headers["etag"], 304),
        (f'"x", W/{response.headers["etag"]}', 304),
        ("*", 304),
        ('"x"', 200),
    ):
        again = client.get(
            "/v1/indexes/default/thumbnail?id=p07.jpg", headers={"If-None-Match": tag}
        )
        assert again.status_code == status
        assert (again.content == b"") == (status == 304)
        assert again.headers["etag"] == response.headers["etag"]


@pytest.mark.parametrize("limit", [7, 20, 1000])
def test_a_list_holds_every_item_once_whatever_the_size_of_its_pages(
    client: httpx.Client, limit: int
):
    found, after = [], ""
    while after is not None:
        page = client.get(
            "/v1/indexes/default/items", params={"limit": limit, "after": after}
        ).json()
        assert page["index"]["version"] == "v000001"
        assert 0 < len(page["items"]) <= limit
        found += page["items"]
        after = page["next"]
        assert after is None or after == found[-1]["id"]
    ids = [one["id"] for one in found]
    assert ids == sorted(ids)
    assert "p07.jpg" in ids
    assert "p07-again.jpg" in ids
    info = client.get("/v1/indexes/default").json()
    assert len(ids) >= info["size"]
    for one in found[:3]:
        item = client.get("/v1/indexes/default/item", params={"id": one["id"]}).json()
        assert one == {name: item[name] for name in one}
