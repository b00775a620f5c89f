"""The BERT encoder, its heads, and the import of pretrained weights."""
