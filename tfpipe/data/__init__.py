"""Raw text -> clean rows -> splits -> token tables -> static-shape batches."""
