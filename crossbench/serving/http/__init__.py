"""The same scorer behind HTTP: the APIs of TEI, Cohere, Jina, vLLM and OpenAI."""
