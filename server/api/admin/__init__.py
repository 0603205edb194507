"""For who runs the server: which models are loaded, and what is to be done about it."""
