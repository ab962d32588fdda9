"""crossbench: measure how fast, how steadily and how faithfully a reranker can be served."""
