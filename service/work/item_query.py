"""An item of the index as a query: what is stored of it, and what is left of its certificate."""

from dataclasses import replace

import numpy as np

from index_builder.search.certified import Answer, SearchableIndex, SearchQuestion
from index_builder.search.gallery import GalleryIndex
from index_builder.search.others import OtherEntries
from index_builder.store.items import Item
from model.embedder import ImageEmbedding
from service.decoding.query_image import QueryImage


def item_query(index: GalleryIndex, item: Item) -> QueryImage:
    """The stored vector of an item: of several views that of the whole picture, the first row.

    It is the query as it stands, not the computed embedding of an image: no error is in it.
    """
    (row, *_) = index.rows.of_entries(np.array([item.number]))
    embedding = ImageEmbedding(
        vector=index.vectors[row].astype(np.float64),
        gain=1.0,
        forward_error=0.0,
        height=item.height,
        width=item.width,
    )
    return QueryImage(item.format, None, sha256=item.content_sha256, embedding=embedding)


def among_others(
    number: int, searched: SearchableIndex, question: SearchQuestion
) -> tuple[SearchableIndex, SearchQuestion]:
    """The same search as if the gallery had not this entry, which a filter may have left out."""
    whole, here = question.whole, np.array([number])
    if whole is not None:
        here = np.flatnonzero(whole.numbers == number)
        whole = replace(whole, gallery=OtherEntries(whole.gallery, number))
    if here.size:
        searched = OtherEntries(searched, int(here[0]))
    return searched, replace(question, whole=whole)


def without_pixels(answer: Answer) -> Answer:
    """The answer with every radius 0; ranks, margins and verdicts are of embedding space."""
    proof = answer.certificate
    none, verdicts = np.zeros(proof.certified_radii.size), proof.verdicts
    certificate = replace(
        proof,
        certified_radii=none,
        top1_radius=0.0,
        set_radius=0.0,
        order_radius=0.0,
        verdicts=verdicts and replace(verdicts, radii=none),
    )
    return replace(answer, certificate=certificate)
