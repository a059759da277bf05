"""What must hold of a search certificate, as a list of everything that does not."""

import itertools

import numpy as np
from bruteforce import ranking, scores, truth


def violations(certificate, query, gallery, *, rows, k, scale, error=0.0, max_distance=None):
    """Compare a certificate with brute force, without tolerance on any published radius.

    Args:
        certificate: what is under test.
        query: raw embedding, (D,).
        gallery: all rows, (N, D) float32.
        rows: the entry number of each position the certificate speaks of.
        k: number of results asked for.
        scale: Lipschitz bound times gain, as a real number the radii are divided by.
        error: forward error, which counts twice.
        max_distance: the threshold, or None.

    Returns:
        One sentence for each claim that is false.
    """
    answer = rows[certificate.positions]
    found = _list_violations(answer, query, gallery, k, max_distance)
    if found:
        return found
    real = truth(query, gallery, answer, k, max_distance)
    published = certificate.certified_radii * scale + 2.0 * error
    claimed = certificate.certified_radii > 0
    for place in np.flatnonzero(claimed & (published > real.membership)):
        found.append(
            f"radius of rank {place}: {published[place]} is above {real.membership[place]}"
        )
    for place in np.flatnonzero(certificate.exact):
        # A radius that the forward error has eaten up is 0, and says no more than that.
        least = max(0.0, real.membership[place] - 2.0 * error) * (1.0 - 1e-6)
        if published[place] - 2.0 * error < least - 1e-6 * 2.0 * error:
            found.append(
                f"rank {place} is called exact: {published[place]}"
                f" instead of {real.membership[place]}"
            )
    for name in ("top1", "set", "order"):
        radius, limit = getattr(certificate, f"{name}_radius"), getattr(real, name)
        if (radius is None) != (limit is None):
            found.append(f"{name} radius is {radius}, but should be {limit}")
        elif radius is not None and radius > 0 and radius * scale + 2.0 * error > limit:
            found.append(f"{name} radius: {radius * scale + 2.0 * error} is above {limit}")
    return found


def _list_violations(answer, query, gallery, k, max_distance):
    """Whether the answer is the true one; scores within rounding of each other may swap."""
    wanted = ranking(query, gallery, k, max_distance)
    if answer.size != wanted.size:
        return [f"{answer.size} results instead of {wanted.size}"]
    if len(set(answer.tolist())) != answer.size:
        return ["an entry is listed twice"]
    rounding = 1e-12 * float(np.linalg.norm(query))
    difference = np.abs(scores(query, gallery[answer]) - scores(query, gallery[wanted]))
    if (difference > rounding).any():
        return [f"rank {int(difference.argmax())} is entry {answer[difference.argmax()]}"]
    for before, after in itertools.pairwise(answer):
        if before > after and np.array_equal(gallery[before], gallery[after]):
            return [f"equal entries {before} and {after} are out of order"]
    return []
