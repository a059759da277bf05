"""What every error looks like."""

from pydantic import Field

from service.schemas.parts import Wire


class FieldError(Wire):
    """One parameter and what is wrong with it."""

    field: str
    message: str


class Problem(Wire):
    """An error, RFC 9457; tell errors apart by `code`."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldError] | None = Field(default=None, description="Field by field, on 400.")
    request_id: str | None = None
