"""LiteRT (TensorFlow Lite) files, in folders with the tokenizer beside them."""
