"""What is served: weights in the Hugging Face layout, their tokenizer, the padding-free encoder."""
