"""Tokens: the tokenizer, token tables, batches of them."""
