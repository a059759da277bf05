"""docs/certificate.md as code: radii from embeddings, in numpy alone."""
