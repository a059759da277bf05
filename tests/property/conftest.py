"""Settings of every property test: no deadline, small blocks.

A shared machine is slow at times. And galleries of a test's size would be one block of a scan:
with small ones they are many, of which the scan leaves some out.
"""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from model.certificate import distances

settings.register_profile("property", deadline=None)
settings.load_profile("property")


@pytest.fixture(autouse=True, scope="module")
def _small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "_BLOCK_BYTES", 1 << 14)
        yield
