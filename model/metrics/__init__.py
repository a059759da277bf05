"""Whatever maps pictures to vectors that are compared by cosine."""
