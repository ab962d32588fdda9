"""Models: reading and checking folders, tokenizers, weights and the padding-free encoder."""
