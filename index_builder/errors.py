"""What can be wrong with a collection or an index; the branch below `model/errors.py`."""

from model.errors import RetrievalError


class SourceError(RetrievalError):
    """A collection cannot be read, is empty, or holds more bad files than allowed."""


class GalleryIndexError(RetrievalError):
    """An index cannot be used; the subclass says why."""


class IndexNotFoundError(GalleryIndexError):
    """There is no such index or version, or the name could not be one."""


class ItemNotFoundError(GalleryIndexError):
    """The index holds no item of that id."""


class IndexFormatError(GalleryIndexError):
    """A file of the index is missing, damaged, surplus or of an unknown schema."""


class IndexModelMismatchError(GalleryIndexError):
    """The index was made by another model or under another decode policy."""


class IndexLockedError(GalleryIndexError):
    """Another writer holds the index."""


class DiskFullError(GalleryIndexError):
    """There is no space left to write; the index is as it was."""

    @classmethod
    def at(cls, what: str, reason: str) -> "DiskFullError":
        """The error for what could not be written, with what to do about it."""
        return cls(
            f"the disk is full: {what} cannot be written ({reason}), and the index is as it was; "
            "free space or `prune` old versions, then run the same command again"
        )


class FilterError(RetrievalError):
    """A filter is not one; says in which clause, what was wanted and what came."""

    def __init__(self, path: str, message: str) -> None:
        self.field = f"filter.{path}" if path else "filter"
        self.message = message
        super().__init__(f"{self.field}: {message}")
