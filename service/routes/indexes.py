"""The indexes in service, and the items in them."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from index_builder.errors import ItemNotFoundError
from service.routes.dependencies import Service, check_query
from service.schemas.indexes import IndexList, IndexStatus, Item, Refusal
from service.work.answers import build_index, build_operating_points
from service.work.encoding import json_response
from service.work.index_registry import IndexEntry, IndexRegistry

router = APIRouter(tags=["indexes"], dependencies=[Depends(check_query)])

ItemId = Annotated[str, Query(min_length=1, max_length=4096, description="Id of the item.")]


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
                id=entry.id,
                duplicates=entry.duplicates,
                sha256=entry.item.content_sha256,
                width=entry.item.width,
                height=entry.item.height,
                format=entry.item.format,
                metadata=entry.metadata,
                index=build_index(index),
            )

    return json_response(await asyncio.to_thread(work))


@router.get(
    "/v1/indexes/{name}/thumbnail",
    response_class=Response,
    summary="Thumbnail of one item",
    responses={
        200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}
    },
)
async def thumbnail(name: str, id: ItemId, service: Service) -> Response:
    """A small picture of one item, as the index version holds it."""
    registry = service.need_indexes().engine.registry

    def work() -> bytes:
        with registry.lease(name) as index:
            picture = index.thumbnail(id)
        if picture is None:
            raise ItemNotFoundError("the item has no thumbnail")
        return picture

    picture = await asyncio.to_thread(work)
    return Response(picture, media_type="image/jpeg")


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
        views=list(index.manifest.view_names) if index is not None else [],
        dim=index and index.dim,
        fingerprint=index and index.manifest.model_fingerprint,
        created=index and index.manifest.created,
        operating_points=build_operating_points(index) if index is not None else [],
        refused=refused
        and Refusal(version=refused.version, code=refused.code, detail=refused.detail),
    )
