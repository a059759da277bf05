"""What a browser gets as it is: the page at /, the documentation at /docs, and their files.

All are our own, so that both work without internet.
"""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Header
from starlette.exceptions import HTTPException
from starlette.responses import Response

router = APIRouter(include_in_schema=False)

_STATIC = files("service.http") / "static"
_MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css"}
_VENDORED = ("swagger-ui-bundle.js", "swagger-ui.css", "docs.js")
# Every file that is served, by name: a request never becomes a path.
_FILES = {name: _STATIC / name for name in _VENDORED} | {
    file.name: file for file in (_STATIC / "page").iterdir() if file.name != "index.html"
}
# What a browser loads before it can ask anybody for a key.
OPEN_PATHS = frozenset({"/", *(f"/static/{name}" for name in _FILES)})

_DOCS_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:"
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/")
async def page() -> Response:
    content = (_STATIC / "page" / "index.html").read_bytes()
    headers = {
        "Content-Security-Policy": _PAGE_POLICY,
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return Response(content, media_type="text/html", headers=headers)


@router.get("/docs")
async def docs() -> Response:
    content = (_STATIC / "docs.html").read_bytes()
    return Response(
        content, media_type="text/html", headers={"Content-Security-Policy": _DOCS_POLICY}
    )


@router.get("/static/{name}")
async def static(name: str, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """A file, asked for again each time: modules of two releases would not fit together."""
    if name not in _FILES:
        raise HTTPException(404)
    content, etag = _read(name)
    headers = {"Cache-Control": "no-cache", "ETag": etag}
    if if_none_match is not None and etag in if_none_match:
        return Response(status_code=304, headers=headers)
    media_type = _MEDIA_TYPES[name[name.rindex(".") :]]
    return Response(content, media_type=media_type, headers=headers)


@cache
def _read(name: str) -> tuple[bytes, str]:
    content = _FILES[name].read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()}"'
