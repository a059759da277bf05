"""What must hold of a search certificate, as a list of everything that does not."""

import itertools

import numpy as np
from bruteforce import item_scores, ranking, truth


def violations(certificate, query, world, *, numbers, k, scale, max_distance=None):
    """Compare a certificate with brute force, without tolerance on any published radius.

    Args:
        certificate: what is under test.
        query: raw embedding, (D,).
        world: gallery, metric and forward error.
        numbers: the item number of each position the certificate speaks of.
        k: number of results asked for.
        scale: Lipschitz bound times gain, as a real number the radii are divided by.
        max_distance: the threshold, or None.

    Returns:
        One sentence for each claim that is false.
    """
    answer = numbers[certificate.positions]
    found = _list_violations(answer, query, world, k, max_distance)
    if found:
        return found
    real = truth(query, world, answer, k, max_distance)
    published = certificate.certified_radii * scale
    claimed = certificate.certified_radii > 0
    for place in np.flatnonzero(claimed & (published > real.membership)):
        found.append(
            f"radius of rank {place}: {published[place]} is above {real.membership[place]}"
        )
    for place in np.flatnonzero(certificate.exact):
        # A radius that the forward error has eaten up is 0, and says no more than that. Of an exit
        # a rounding of the cosine may take the root of itself: the same with more candidates.
        least = max(0.0, real.membership[place])
        lost = 0.0 if max_distance is None else 1e-5 * float(np.linalg.norm(query))
        if published[place] < least - 1e-6 * (least + 4.0 * world.error) - lost:
            found.append(
                f"rank {place} is called exact: {published[place]}"
                f" instead of {real.membership[place]}"
            )
    for name in ("top1", "set", "order"):
        radius, limit = getattr(certificate, f"{name}_radius"), getattr(real, name)
        if (radius is None) != (limit is None):
            found.append(f"{name} radius is {radius}, but should be {limit}")
        elif radius is not None and radius > 0 and radius * scale > limit:
            found.append(f"{name} radius: {radius * scale} is above {limit}")
    return found


def _list_violations(answer, query, world, k, max_distance):
    """Whether the answer is the true one; scores within rounding of each other may swap."""
    wanted = ranking(query, world, k, max_distance)
    if answer.size != wanted.size:
        return [f"{answer.size} results instead of {wanted.size}"]
    if len(set(answer.tolist())) != answer.size:
        return ["an entry is listed twice"]
    rounding = 1e-12 * float(np.linalg.norm(query))
    best = item_scores(query, world).astype(np.float64)
    difference = np.abs(best[answer] - best[wanted])
    if (difference > rounding).any():
        return [f"rank {int(difference.argmax())} is entry {answer[difference.argmax()]}"]
    for before, after in itertools.pairwise(answer):
        own, other = world.rows[world.views(before)], world.rows[world.views(after)]
        if before > after and len(own) == len(other) == 1 and np.array_equal(own, other):
            return [f"equal entries {before} and {after} are out of order"]
    return []
