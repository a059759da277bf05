"""What this deployment is: versions, limits, the model in service."""

import platform
from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter, Depends
from starlette.responses import Response

from service.routes.state import ServiceState, check_query
from service.schemas.info import Info, ServedModel
from service.work.answers import describe_model
from service.work.encoding import json_response
from service.work.engine import Engine

router = APIRouter(tags=["info"], dependencies=[Depends(check_query)])

# Those that take part in an answer's numbers or in its transport.
_LIBRARIES = ("torch", "faiss-cpu", "faiss-gpu", "numpy", "pillow", "fastapi", "uvicorn")
PACKAGE = "lipsim-retrieval"


@router.get("/v1/info", response_model=Info, summary="Limits, versions and models")
async def info(state: ServiceState) -> Response:
    """What one request may ask for, and what answers it."""
    engine = state.runtime.engine
    return json_response(
        Info(
            name=PACKAGE,
            version=version(PACKAGE),
            versions=library_versions(),
            limits=state.limits,
            models=[_served(engine)],
            indexes=[entry.name for entry in engine.shelf.entries() if entry.index is not None],
        )
    )


def library_versions() -> dict[str, str]:
    """Version of each library that is installed, and of Python."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # One of the two FAISS packages is absent, always.
            continue
    return versions


def _served(engine: Engine) -> ServedModel:
    embedder = engine.embedder
    return ServedModel(
        **describe_model(embedder, embedder.forward_error).model_dump(),
        dim=embedder.dim,
        input_size=embedder.input_size,
        decode_policy=embedder.decode_policy,
    )
