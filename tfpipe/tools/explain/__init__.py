"""Words of a text that speak for an answer, or against it."""
