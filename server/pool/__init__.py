"""Which models are loaded, and in which process."""
