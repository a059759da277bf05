"""The page at /docs: Swagger UI from our own files, so that it works without internet."""

from importlib.resources import files

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

router = APIRouter(include_in_schema=False)

# Every file that is served, by name: a request never becomes a path.
_MEDIA_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "docs.js": "text/javascript",
}
_STATIC = files("service.http") / "static"
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:"


@router.get("/")
async def root() -> Response:
    """The page is all there is to see at the root; relative, so that a proxy may add a prefix."""
    return RedirectResponse("docs")


@router.get("/docs")
async def docs() -> Response:
    page = (_STATIC / "docs.html").read_bytes()
    return Response(page, media_type="text/html", headers={"Content-Security-Policy": _POLICY})


@router.get("/static/{name}")
async def static(name: str) -> Response:
    if name not in _MEDIA_TYPES:
        raise HTTPException(404)
    return Response(
        (_STATIC / name).read_bytes(),
        media_type=_MEDIA_TYPES[name],
        headers={"Cache-Control": "max-age=86400"},
    )
