"""Which words of a text speak for an answer, and which against it."""
