"""The worst noise of a given length that a gradient finds against one result, in 8-bit pixels.

Projected gradient descent on the lead of the result's entry over the k-th best other one: it leaves
the answer when that is below 0. Every step starts from a picture that can be sent: rounded, and
measured after rounding.
"""

import base64
import io
import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from index_builder.search.certified import Answer, SearchQuestion
from index_builder.search.filtered import Searched
from index_builder.search.statement import Statement, state
from model.embedder import Embedder, ImageEmbedding
from model.errors import ImageSizeError
from model.pixels.decode import DecodedImage
from model.pixels.tolerances.tables import UNIT_SQUARE, largest_square, squared_pixel_distance
from service.schemas.challenge import ChallengeAnswer
from service.schemas.common import ImageInfo
from service.schemas.search import SearchTimings
from service.work.answers import build_index, build_model, image_fields
from service.work.encoding import encode
from service.work.jobs import ChallengeJob
from service.work.tolerance import ask, describe

Pixels = UInt8[np.ndarray, "H W 3"]

MOST_PIXELS = 1_000_000
# So that the steps, each turned anew, can go around the ball: 2.5 radii in all.
_WAY = 2.5
_LARGEST_SCALE = 256.0
_HALVINGS = 16


def challenge_steps(
    job: ChallengeJob,
    index: Searched,
    embedder: Embedder,
    question: SearchQuestion,
    *,
    check_deadline: Callable[[], None],
) -> Iterator[bytes | None]:
    """Attack, a gradient a step; the last step gives the answer as JSON, those before it None."""
    (image,), options = job.images, job.options
    pixels = image.pixels
    assert pixels is not None  # noqa: S101 - they were asked for.
    if pixels.size > 3 * MOST_PIXELS:
        raise ImageSizeError(f"at most {MOST_PIXELS} pixels are attacked, {pixels.size // 3} came")

    def embed(picture: Pixels) -> ImageEmbedding:
        return embedder.embed_image(DecodedImage(picture, image.format))

    answer = ask(index, image.embedded, question, check_deadline)
    job.watch.lap("search")
    statement = state(answer, index, "result", options.id)
    lead = Lead(answer, index, statement, question.k)
    change, best, steps = np.zeros(pixels.shape), pixels, 0
    least, direction = lead.of(image.embedded.vector)
    attacked = pixels
    while steps < options.steps and least >= 0.0:
        slope = embedder.gradient(attacked / 255.0, direction)
        change = shortened(change + slope * (_WAY / options.steps / _length(slope)), 1.0)
        attacked, steps = rounded(pixels, change, options.budget), steps + 1
        value, direction = lead.of(embed(attacked).vector)
        if value < least:
            least, best = value, attacked
        job.watch.lap("certify")
        yield None
        check_deadline()
    is_true = statement.is_true_of(ask(index, embed(best), question, check_deadline))
    file = io.BytesIO()
    Image.fromarray(best).save(file, "PNG")
    job.watch.lap("certify")
    yield encode(
        ChallengeAnswer(
            query=ImageInfo.model_validate(image_fields(image)),
            index=build_index(index),
            model=build_model(embedder, image.embedded.forward_error),
            statement=describe(statement, statement.radius_in(answer), index),
            budget=options.budget,
            l2=math.sqrt(squared_pixel_distance(pixels, best) / UNIT_SQUARE),
            steps=steps,
            changed=not is_true,
            image_base64=base64.b64encode(file.getvalue()).decode(),
            timings_ms=SearchTimings(**job.watch.timings_ms()),
        )
    )


class Lead:
    """How far an entry is ahead of the k-th best other one, among the candidates of its answer."""

    def __init__(self, answer: Answer, index: Searched, statement: Statement, k: int) -> None:
        numbers, vectors = answer.candidates.numbers, answer.candidates.vectors
        self._own = index.of_items(np.array([*statement.entries])).vectors.astype(np.float64)
        is_other = ~np.isin(numbers, [*statement.entries])
        self._others = vectors[is_other].astype(np.float64)
        self._entries = np.unique(numbers[is_other], return_inverse=True)[1]
        self._k = k

    def of(self, embedding: Float64[np.ndarray, " D"]) -> tuple[float, Float64[np.ndarray, " D"]]:
        """The lead (inf: there are fewer others than k), and which way an embedding loses it."""
        own, others = self._own @ embedding, self._others @ embedding
        nearest = self._own[int(own.argmax())]
        order = np.argsort(-others, kind="stable")
        firsts = order[np.sort(np.unique(self._entries[order], return_index=True)[1])]
        if firsts.size < self._k:
            return math.inf, -nearest
        rival = firsts[self._k - 1]
        return float(own.max() - others[rival]), self._others[rival] - nearest


def rounded(pixels: Pixels, change: Float64[np.ndarray, "H W 3"], budget: float) -> Pixels:
    """The picture with a change, scaled so that after rounding it just stays within the budget."""
    most, fits, too_far = largest_square(budget), 0.0, _LARGEST_SCALE * 255.0 * budget
    best = pixels
    for _ in range(_HALVINGS):
        scale = (fits + too_far) / 2.0
        picture = np.clip(np.rint(pixels + scale * change), 0.0, 255.0).astype(np.uint8)
        if squared_pixel_distance(pixels, picture) <= most:
            fits, best = scale, picture
        else:
            too_far = scale
    return best


def shortened(change: Float64[np.ndarray, "H W 3"], longest: float) -> Float64[np.ndarray, "H W 3"]:
    return change * min(1.0, longest / _length(change))


def _length(change: Float64[np.ndarray, "H W 3"]) -> float:
    return max(float(np.linalg.norm(change)), 1e-300)
