"""The worker process of one GGUF. Nothing here knows HTTP, OpenAI or chat."""
