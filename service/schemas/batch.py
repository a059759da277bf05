"""What a batch of searches is asked and answers."""

from typing import Annotated

from pydantic import Field

from service.schemas.common import LONGEST_ID, Options, Problem, Wire
from service.schemas.search import SearchAnswer

MOST_IMAGES = 64


class BatchItem(Options):
    """One image of a batch in JSON."""

    id: Annotated[str, Field(max_length=LONGEST_ID)] = Field(
        description="Whatever the sender calls it; its part of the answer has it, too."
    )
    image_base64: str = Field(description="The image file in base64 (RFC 4648, padded).")


class BatchItems(Options):
    """The images of a batch in JSON, beside its options."""

    items: list[BatchItem] = Field(min_length=1, max_length=MOST_IMAGES)


class BatchItemAnswer(Wire):
    """What became of one image of a batch: `answer` with status 200, else `problem`."""

    id: str | None = Field(
        description="As it was sent; in a form the file name, null where the part has none."
    )
    status: int = Field(description="What the image alone would have been answered with.")
    answer: SearchAnswer | None = None
    problem: Problem | None = None


class BatchAnswer(Wire):
    """Answer of /v1/search/batch."""

    items: list[BatchItemAnswer] = Field(description="One for each image, in the order sent.")
