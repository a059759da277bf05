"""Shared by the tests of calibration: queries made of a collection, and the small real embedder."""

import sys
from functools import partial

from index_tools import MAX_BYTES, TinyEmbedder

from index_builder.calibration.measure import calibrate_index
from index_builder.calibration.queries import SyntheticPairs
from index_builder.sources.open_source import open_source
from model.cli.progress import Progress
from model.pixels.decode import DecodeLimits

PICTURES = 660
LIMITS = DecodeLimits()


def copies(source, queries, *more):
    sources = (source, *more)
    openers = {str(one): partial(open_source, one, max_bytes=MAX_BYTES) for one in sources}
    return SyntheticPairs(openers, source=str(source), queries=queries)


def calibrate(data_dir, pairs, *, model=0, **options):
    return calibrate_index(data_dir, "default", pairs, TinyEmbedder(model), **options)


def measure_slowly(data_dir, source, seconds_a_batch):
    """In a process of its own: at a pace at which it can be killed."""
    embedder, progress = TinyEmbedder(0, seconds_a_batch), Progress(sys.stdout)
    calibrate_index(data_dir, "default", copies(source, 620), embedder, progress=progress)
