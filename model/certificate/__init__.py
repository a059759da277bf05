"""docs/certificate.md as code: radii from embeddings, in numpy alone."""

from model.certificate.search import Candidates, certify_search

__all__ = ["Candidates", "certify_search"]
