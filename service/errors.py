"""Errors of the web side, and the one table from error class to status and problem code."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from index_builder import errors as index_errors
from model import errors as model_errors
from model.errors import RetrievalError

# Seconds after which to come back, where nothing better is known.
RETRY_AFTER_S = 1

# Each bound that says "come back later", so that an operator can see which is the tight one.
RefusalReason = Literal["gate", "places", "connections", "bytes", "queue_timeout"]


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


class ChallengeDisabledError(ServiceError):
    """The deployment does not let anybody have its own results attacked."""


class QuotaError(ServiceError):
    """The caller has used up the requests of its window."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
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
        self, message: str, *, reason: RefusalReason, retry_after_s: int = RETRY_AFTER_S
    ) -> None:
        self.reason: RefusalReason = reason
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


class ErrorSpec(NamedTuple):
    """How one error class is answered; a private one never shows its message."""

    status: int
    code: str
    title: str
    is_public: bool = True


INTERNAL = ErrorSpec(500, "internal_error", "Internal error", is_public=False)

# One row per class: tests/architecture walks the tree and compares.
ERROR_TABLE: dict[type[RetrievalError], ErrorSpec] = {
    # What no client can cause.
    **dict.fromkeys(
        (
            RetrievalError,
            ServiceError,
            KeysFileError,
            UnsafeBindingError,
            ReplayError,
            model_errors.DependencyError,
            model_errors.CheckpointError,
            model_errors.CertificateError,
            model_errors.AttackError,
            model_errors.CorpusError,
            model_errors.TrainingError,
            model_errors.DataError,
            model_errors.MetricError,
            model_errors.EvaluationError,
            index_errors.GalleryIndexError,
            index_errors.IndexLockedError,
            index_errors.DiskFullError,
            index_errors.SourceError,
        ),
        INTERNAL,
    ),
    UnauthorizedError: ErrorSpec(401, "unauthorized", "A valid key is needed"),
    ForbiddenError: ErrorSpec(403, "forbidden", "The key may not do this"),
    ChallengeDisabledError: ErrorSpec(403, "challenge_disabled", "Attacks are not offered here"),
    QuotaError: ErrorSpec(429, "quota_exceeded", "The quota is used up"),
    MalformedRequestError: ErrorSpec(400, "malformed_request", "This is not an HTTP request"),
    BadRequestError: ErrorSpec(400, "malformed_body", "The body cannot be parsed"),
    MissingFieldError: ErrorSpec(400, "missing_field", "A required field is missing"),
    InvalidParameterError: ErrorSpec(400, "invalid_parameter", "A parameter is not valid"),
    index_errors.FilterError: ErrorSpec(400, "invalid_filter", "The filter is not valid"),
    UnknownOperatingPointError: ErrorSpec(
        400, "unknown_operating_point", "The index has no such operating point"
    ),
    MediaTypeError: ErrorSpec(415, "unsupported_media_type", "Content type not supported"),
    BodyTooLargeError: ErrorSpec(413, "body_too_large", "The body is too large"),
    BodyTimeoutError: ErrorSpec(408, "body_timeout", "The body did not arrive in time"),
    ClientGoneError: ErrorSpec(400, "client_gone", "The client closed the connection"),
    OverloadedError: ErrorSpec(503, "overloaded", "Too many requests at the moment"),
    NotReadyError: ErrorSpec(503, "not_ready", "The service is not ready yet"),
    IndexUnavailableError: ErrorSpec(503, "index_unavailable", "The index cannot be served"),
    DeadlineError: ErrorSpec(504, "timeout", "The work took too long"),
    DecodeTimeoutError: ErrorSpec(504, "decode_timeout", "The image took too long to decode"),
    model_errors.ImageError: ErrorSpec(422, "bad_image", "The image cannot be used"),
    model_errors.EmptyImageError: ErrorSpec(422, "empty_image", "The image is empty"),
    model_errors.ImageBytesError: ErrorSpec(413, "image_too_large", "The image has too many bytes"),
    model_errors.ImageFormatError: ErrorSpec(
        415, "unsupported_image_format", "The image format is unknown or not allowed"
    ),
    model_errors.ImageSizeError: ErrorSpec(
        422, "image_dimensions", "The image has too many pixels or too long a side"
    ),
    model_errors.ImageDecodeError: ErrorSpec(
        422, "undecodable_image", "The image is truncated or damaged"
    ),
    # Whatever an image holds is the sender's matter, never an internal error.
    model_errors.EmbeddingError: ErrorSpec(
        422, "unembeddable_image", "The image has no usable embedding", is_public=False
    ),
    index_errors.IndexNotFoundError: ErrorSpec(404, "index_not_found", "No such index"),
    index_errors.ItemNotFoundError: ErrorSpec(404, "item_not_found", "No such item"),
    index_errors.IndexFormatError: ErrorSpec(
        503, "index_unavailable", "The index cannot be served", is_public=False
    ),
    index_errors.IndexModelMismatchError: ErrorSpec(
        503, "index_unavailable", "The index cannot be served", is_public=False
    ),
}

# Problems that have no error class: the router's own.
ROUTE_NOT_FOUND = ErrorSpec(404, "route_not_found", "No such route")
METHOD_NOT_ALLOWED = ErrorSpec(405, "method_not_allowed", "Method not allowed on this route")


def spec_of(error: RetrievalError) -> ErrorSpec:
    """The row of the nearest class of an error that has one, as the root has."""
    return next(ERROR_TABLE[kind] for kind in type(error).__mro__ if kind in ERROR_TABLE)
