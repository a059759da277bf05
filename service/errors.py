"""Errors of the web side, and the one table from error class to status and problem code.

RetrievalError
└── ServiceError
    ├── KeysFileError             the file of API keys cannot be read, is damaged, or has the name
    ├── UnsafeBindingError        the network would be served without keys
    ├── UnauthorizedError         no key, or none that is in force
    ├── ForbiddenError            the key's scope is too small
    ├── QuotaError                the caller has used up its requests for now
    ├── MalformedRequestError     what came is no HTTP request
    ├── BadRequestError           the body cannot be parsed: multipart, JSON or base64
    ├── MissingFieldError         a required field is not there
    ├── InvalidParameterError     a value, a name, or the same option twice
    │   └── UnknownOperatingPointError  the index has no operating point of that name
    ├── MediaTypeError            a Content-Type or Content-Encoding we do not read
    ├── BodyTooLargeError         more bytes than the route takes, counted while they arrive
    ├── BodyTimeoutError          the body did not arrive in time
    ├── ClientGoneError           the client hung up before its body was complete
    ├── OverloadedError           the queue is full, or the wait was too long
    ├── NotReadyError             the model or the indexes are still loading
    ├── IndexUnavailableError     the index is there, and was refused at opening
    ├── ReplayError               a recorded answer cannot be repeated with what is here
    └── DeadlineError             the work took too long
        └── DecodeTimeoutError    decoding the image did
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from index_builder import errors as index_errors
from model import errors as model_errors
from model.errors import RetrievalError

# Seconds after which to come back, where nothing better is known.
RETRY_AFTER_S = 1

# Each bound that says "come back later", so that an operator can see which is the tight one.
Refusal = Literal["gate", "places", "connections", "bytes", "queue_timeout"]


class ServiceError(RetrievalError):
    """Something about one request, or about the state of the service."""


class KeysFileError(ServiceError):
    """The file of API keys cannot be read or written, is damaged, or says no to a change."""


class UnsafeBindingError(ServiceError):
    """Other machines could reach the service, and nobody would need a key."""


class UnauthorizedError(ServiceError):
    """The request has no key, or one that is unknown or expired: it is not said which."""


class ForbiddenError(ServiceError):
    """The key is in force, and its scope is too small for the path."""


class QuotaError(ServiceError):
    """The caller has used up the requests of its window."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        """Keep the seconds after which the next window has begun."""
        self.retry_after_s = retry_after_s
        super().__init__(message)


class MalformedRequestError(ServiceError):
    """What came over the connection is no HTTP request that may be trusted."""


class BadRequestError(ServiceError):
    """The body cannot be parsed as what its Content-Type says."""


class FieldProblem(NamedTuple):
    """One parameter and what is wrong with it."""

    field: str
    message: str


class InvalidParameterError(ServiceError):
    """A parameter has a value or a name that is not allowed, or is given twice."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        """Keep the problems field by field, for the answer."""
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.field}: {p.message}" for p in problems))


class MissingFieldError(InvalidParameterError):
    """A required field is not in the request."""


class UnknownOperatingPointError(InvalidParameterError):
    """The version of the index that would answer has no operating point of that name."""


class MediaTypeError(ServiceError):
    """The Content-Type or Content-Encoding is not one that this route reads."""


class BodyTooLargeError(ServiceError):
    """The body has more bytes than this route takes."""


class BodyTimeoutError(ServiceError):
    """The body did not arrive within the time allowed."""


class ClientGoneError(ServiceError):
    """The client closed the connection before its body was complete; nobody reads the answer."""


class OverloadedError(ServiceError):
    """Too many requests wait already, or this one waited too long for a worker."""

    def __init__(
        self, message: str, *, reason: Refusal, retry_after_s: int = RETRY_AFTER_S
    ) -> None:
        """Keep which bound it was, and the seconds after which asking again is worth it."""
        self.reason: Refusal = reason
        self.retry_after_s = retry_after_s
        super().__init__(message)


class NotReadyError(ServiceError):
    """The model, or the first look at the indexes, is not finished."""


class IndexUnavailableError(ServiceError):
    """The index exists, but no version of it could be opened."""


class ReplayError(ServiceError):
    """A recorded answer cannot be repeated: another image, model, index version, or no record."""


class DeadlineError(ServiceError):
    """The work on this request took longer than allowed."""


class DecodeTimeoutError(DeadlineError):
    """Decoding the image took longer than allowed; the process that did it was ended."""


class Row(NamedTuple):
    """How one error class is answered; a private one never shows its message."""

    status: int
    code: str
    title: str
    is_public: bool = True


_INTERNAL = Row(500, "internal_error", "Internal error", is_public=False)

# One row per class: tests/architecture walks the tree and compares.
ERROR_TABLE: dict[type[RetrievalError], Row] = {
    RetrievalError: _INTERNAL,
    ServiceError: _INTERNAL,
    KeysFileError: _INTERNAL,
    UnsafeBindingError: _INTERNAL,
    UnauthorizedError: Row(401, "unauthorized", "A valid key is needed"),
    ForbiddenError: Row(403, "forbidden", "The key may not do this"),
    QuotaError: Row(429, "quota_exceeded", "The quota is used up"),
    MalformedRequestError: Row(400, "malformed_request", "This is not an HTTP request"),
    BadRequestError: Row(400, "malformed_body", "The body cannot be parsed"),
    MissingFieldError: Row(400, "missing_field", "A required field is missing"),
    InvalidParameterError: Row(400, "invalid_parameter", "A parameter is not valid"),
    UnknownOperatingPointError: Row(
        400, "unknown_operating_point", "The index has no such operating point"
    ),
    MediaTypeError: Row(415, "unsupported_media_type", "Content type not supported"),
    BodyTooLargeError: Row(413, "body_too_large", "The body is too large"),
    BodyTimeoutError: Row(408, "body_timeout", "The body did not arrive in time"),
    ClientGoneError: Row(400, "client_gone", "The client closed the connection"),
    OverloadedError: Row(503, "overloaded", "Too many requests at the moment"),
    NotReadyError: Row(503, "not_ready", "The service is not ready yet"),
    IndexUnavailableError: Row(503, "index_unavailable", "The index cannot be served"),
    DeadlineError: Row(504, "timeout", "The work took too long"),
    DecodeTimeoutError: Row(504, "decode_timeout", "The image took too long to decode"),
    ReplayError: _INTERNAL,
    model_errors.DependencyError: _INTERNAL,
    model_errors.ImageError: Row(422, "bad_image", "The image cannot be used"),
    model_errors.EmptyImageError: Row(422, "empty_image", "The image is empty"),
    model_errors.ImageBytesError: Row(413, "image_too_large", "The image has too many bytes"),
    model_errors.ImageFormatError: Row(
        415, "unsupported_image_format", "The image format is unknown or not allowed"
    ),
    model_errors.ImageSizeError: Row(
        422, "image_dimensions", "The image has too many pixels or too long a side"
    ),
    model_errors.ImageDecodeError: Row(
        422, "undecodable_image", "The image is truncated or damaged"
    ),
    # Whatever an image holds is the sender's matter, never an internal error.
    model_errors.EmbeddingError: Row(
        422, "unembeddable_image", "The image has no usable embedding", is_public=False
    ),
    model_errors.CheckpointError: _INTERNAL,
    model_errors.CertificateError: _INTERNAL,
    model_errors.AttackError: _INTERNAL,
    model_errors.CorpusError: _INTERNAL,
    model_errors.TrainingError: _INTERNAL,
    model_errors.DataError: _INTERNAL,
    model_errors.MetricError: _INTERNAL,
    model_errors.EvaluationError: _INTERNAL,
    index_errors.GalleryIndexError: _INTERNAL,
    index_errors.IndexNotFoundError: Row(404, "index_not_found", "No such index"),
    index_errors.ItemNotFoundError: Row(404, "item_not_found", "No such item"),
    index_errors.IndexFormatError: Row(
        503, "index_unavailable", "The index cannot be served", is_public=False
    ),
    index_errors.IndexModelMismatchError: Row(
        503, "index_unavailable", "The index cannot be served", is_public=False
    ),
    index_errors.IndexLockedError: _INTERNAL,
    index_errors.DiskFullError: _INTERNAL,
    index_errors.SourceError: _INTERNAL,
}

# Problems that have no error class: the router's own.
ROUTE_NOT_FOUND = Row(404, "route_not_found", "No such route")
METHOD_NOT_ALLOWED = Row(405, "method_not_allowed", "Method not allowed on this route")
INTERNAL = _INTERNAL


def row_of(error: RetrievalError) -> Row:
    """The row of the nearest class of an error that has one."""
    for kind in type(error).__mro__:
        if kind in ERROR_TABLE:
            return ERROR_TABLE[kind]
    return _INTERNAL  # pragma: no cover - the root has a row
