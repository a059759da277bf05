"""The indexes in service, and the items in them."""

import asyncio
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import Response

from index_builder.errors import ItemNotFoundError
from index_builder.filters.language import parse_filter
from index_builder.search.filtered import FilteredIndex
from index_builder.store.items import Item as StoredItem
from index_builder.store.terms import names_of
from service.http.route_specs import LIST_ITEMS
from service.http.upload import read_upload
from service.routes.dependencies import Service, check_query
from service.schemas.common import LONGEST_ID, IndexInfo, PlainNumber
from service.schemas.indexes import (
    HeldValue,
    IndexList,
    IndexStatus,
    Item,
    ItemPage,
    KeyPage,
    ListedItem,
    Refusal,
    ValueList,
)
from service.work.answers import build_index, build_operating_points, thumbnail_path
from service.work.encoding import json_response
from service.work.index_registry import IndexEntry, IndexRegistry

router = APIRouter(tags=["indexes"], dependencies=[Depends(check_query)])

ItemId = Annotated[str, Query(min_length=1, max_length=LONGEST_ID, description="Id of the item.")]
After = Annotated[
    str,
    Query(max_length=LONGEST_ID, description="Those that come after this one, by code point."),
]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most."), PlainNumber]
Key = Annotated[
    str, Query(min_length=1, max_length=LONGEST_ID, description="A key, as a filter names it.")
]
Prefix = Annotated[
    str, Query(max_length=LONGEST_ID, description="Only texts that begin so; empty: every value.")
]
Content = Annotated[
    str | None,
    Query(pattern="^[0-9a-f]{64}$", description="SHA-256 of the item's file, as answers link it."),
]


@router.get("/v1/indexes", response_model=IndexList, summary="List the indexes")
async def list_all(service: Service) -> Response:
    """Every index of the data directory: what serves, and what was refused and why."""
    registry = service.need_indexes().engine.registry
    return json_response(IndexList(indexes=statuses(registry)))


@router.get("/v1/indexes/{name}", response_model=IndexStatus, summary="Describe one index")
async def describe(name: str, service: Service) -> Response:
    """One index: its version, its size, and the model that made it."""
    registry = service.need_indexes().engine.registry
    return json_response(status_of(registry.entry(name)))


@router.get("/v1/indexes/{name}/item", response_model=Item, summary="Describe one item")
async def item(name: str, id: ItemId, service: Service) -> Response:
    """The entry that holds this id: its metadata, and the other ids with an equal vector."""
    registry = service.need_indexes().engine.registry

    def work() -> Item:
        with registry.lease(name) as index:
            entry = index.entry_by_id(id)
            return Item(
                **_fields(name, entry.item), duplicates=entry.duplicates, index=build_index(index)
            )

    return json_response(await asyncio.to_thread(work))


@router.get("/v1/indexes/{name}/items", response_model=ItemPage, summary="List the items")
async def items(name: str, service: Service, after: After = "", limit: Limit = 100) -> Response:
    """The items of an index, page by page: `next` of one answer is `after` of the next.

    While the index changes, an item that stays is listed once all the same; each page says which
    version it is of.
    """
    registry = service.need_indexes().engine.registry

    def work() -> ItemPage:
        with registry.lease(name) as index:
            found = index.items.page(after, limit + 1)
            return _page(name, found, limit, build_index(index))

    return json_response(await to_thread.run_sync(work, limiter=service.parts.admission.listing))


@router.post(
    "/v1/indexes/{name}/items/list", response_model=ItemPage, summary="List the items that match"
)
async def matching_items(request: Request, name: str, service: Service) -> Response:
    """As `GET .../items`, with the members in the body and a filter among them."""
    engine, admission = service.need_indexes().engine, service.parts.admission
    with admission.receiving.take():
        options = (await read_upload(request, LIST_ITEMS)).options
    wanted = parse_filter({} if options.filter is None else options.filter)

    def work() -> ItemPage:
        with engine.registry.lease(name) as index:
            part = FilteredIndex.of(index, wanted, engine.filters)
            found = part.page(options.after, options.limit + 1)
            return _page(name, found, options.limit, build_index(part))

    with admission.working.take():
        return json_response(await to_thread.run_sync(work, limiter=admission.listing))


@router.get(
    "/v1/indexes/{name}/metadata", response_model=KeyPage, summary="List the keys of the metadata"
)
async def metadata_keys(
    name: str, service: Service, after: After = "", limit: Limit = 100
) -> Response:
    """What a filter of this index may ask about: every key that any item has."""
    registry = service.need_indexes().engine.registry

    def work() -> KeyPage:
        with registry.lease(name) as index:
            found = index.columns.keys(after, limit + 1)
            following = found[limit - 1] if len(found) > limit else None
            return KeyPage(keys=found[:limit], next=following, index=build_index(index))

    return json_response(await to_thread.run_sync(work, limiter=service.parts.admission.listing))


@router.get(
    "/v1/indexes/{name}/metadata/values",
    response_model=ValueList,
    summary="List the values of a key",
)
async def metadata_values(
    name: str, key: Key, service: Service, prefix: Prefix = "", limit: Limit = 100
) -> Response:
    """The values that the items have at a key, and how many have each."""
    registry = service.need_indexes().engine.registry

    def work() -> ValueList:
        with registry.lease(name) as index:
            found = index.columns.values(names_of(key), prefix, limit + 1)
            return ValueList(
                key=key,
                values=[HeldValue(value=value, items=items) for value, items in found[:limit]],
                complete=len(found) <= limit,
                index=build_index(index),
            )

    return json_response(await to_thread.run_sync(work, limiter=service.parts.admission.listing))


@router.get(
    "/v1/indexes/{name}/thumbnail",
    response_class=Response,
    summary="Thumbnail of one item",
    responses={
        200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
        304: {"description": "The picture is the one of `If-None-Match`."},
    },
)
async def thumbnail(
    name: str,
    id: ItemId,
    service: Service,
    content: Content = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """A small picture of one item, as the index version holds it.

    With the `content` that an answer's link has, it may be kept for good: of another picture it is
    another link. Without, it is to be asked for again, with `If-None-Match`.
    """
    registry = service.need_indexes().engine.registry

    def work() -> tuple[str, bytes]:
        with registry.lease(name) as index:
            sha256 = index.items.by_id(id).content_sha256
            picture = index.items.thumbnail_by_content(sha256)
        if picture is None:
            raise ItemNotFoundError("the item has no thumbnail")
        return sha256, picture

    sha256, picture = await asyncio.to_thread(work)
    kept = "max-age=31536000, immutable" if content == sha256 else "no-cache"
    etag = f'"{sha256}"'
    headers = {
        "ETag": etag,
        "Cache-Control": f"private, {kept}",
        "Vary": "Authorization, X-API-Key",
    }
    known = [one.strip().removeprefix("W/") for one in (if_none_match or "").split(",")]
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(picture, media_type="image/jpeg", headers=headers)


def _page(name: str, found: list[StoredItem], limit: int, index: IndexInfo) -> ItemPage:
    """A page of items, of which one more than the limit was looked for."""
    return ItemPage(
        items=[ListedItem(**_fields(name, one)) for one in found[:limit]],
        next=found[limit - 1].id if len(found) > limit else None,
        index=index,
    )


def _fields(index: str, item: StoredItem) -> dict[str, Any]:
    """What is said of any item."""
    return {
        "id": item.id,
        "sha256": item.content_sha256,
        "width": item.width,
        "height": item.height,
        "format": item.format,
        "metadata": item.metadata,
        "thumbnail": thumbnail_path(index, item),
    }


def statuses(registry: IndexRegistry) -> list[IndexStatus]:
    return [status_of(entry) for entry in registry.entries()]


def status_of(entry: IndexEntry) -> IndexStatus:
    index, refused = entry.index, entry.refused
    return IndexStatus(
        name=entry.name,
        status="refused" if index is None else "serving",
        version=index and index.version,
        size=index and index.size,
        vectors=index and index.vector_count,
        quarantined=index and index.manifest.counts.get("quarantined", 0),
        views=list(index.manifest.view_names) if index is not None else [],
        dim=index and index.dim,
        fingerprint=index and index.manifest.model_fingerprint,
        created=index and index.manifest.created,
        operating_points=build_operating_points(index) if index is not None else [],
        refused=refused
        and Refusal(version=refused.version, code=refused.code, detail=refused.detail),
    )
