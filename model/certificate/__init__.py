"""docs/certificate.md as code: radii from embeddings, norms of layers, in numpy alone."""

from model.certificate.pairs import Candidates
from model.certificate.search import certify_search

__all__ = ["Candidates", "certify_search"]
