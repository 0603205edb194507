"""Corral: a pool of GGUF models behind one OpenAI-compatible HTTP API."""

__version__ = "0.1.0"
