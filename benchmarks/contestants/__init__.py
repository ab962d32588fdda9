"""What is compared: each a process of its own, so that each may live in its own environment."""
