"""Training of the hybrid tokenizer."""
