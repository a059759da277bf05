import numpy as np

from model.embedder import ImageEmbedding
from service.work.cache.memory import CachedEmbedding, MemoryCache


def found(dim: int = 16) -> CachedEmbedding:
    return CachedEmbedding("PNG", ImageEmbedding(np.zeros(dim), 1.0, 0.0, 10, 10))


EACH = found().bytes_held


def test_what_was_asked_about_longest_ago_is_forgotten_first():
    cache = MemoryCache(3 * EACH)
    for name in "abc":
        cache.put(name, found())
    cache.get("a")
    cache.put("d", found())
    assert [name for name in "abcd" if cache.get(name)] == ["a", "c", "d"]


def test_it_never_holds_more_than_it_may():
    cache = MemoryCache(10 * EACH)
    for number in range(100):
        cache.put(str(number % 37), found(16 + number))
        assert cache.bytes_held <= 10 * EACH
    assert cache.bytes_held == sum(
        entry.bytes_held for name in map(str, range(37)) if (entry := cache.get(name))
    )


def test_the_same_file_twice_is_counted_once():
    cache = MemoryCache(10 * EACH)
    for _ in range(5):
        cache.put("a", found())
    assert (len(cache), cache.bytes_held) == (1, EACH)


def test_one_that_is_too_large_for_all_of_it_is_not_kept():
    cache = MemoryCache(EACH)
    cache.put("large", found(10_000))
    assert (len(cache), cache.bytes_held) == (0, 0)


def test_the_memory_counted_is_not_less_than_that_taken():
    import tracemalloc  # noqa: PLC0415 - it slows down everything while it is on.

    cache = MemoryCache(1 << 30)
    tracemalloc.start()
    for number in range(1000):
        vector = np.zeros(512)
        cache.put(
            f"{number:064}", CachedEmbedding("PNG", ImageEmbedding(vector, 1.5, 1e-9, 480, 640))
        )
        del vector
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.5 * cache.bytes_held < taken <= cache.bytes_held
