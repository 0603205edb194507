"""The Responses API: what is asked and answered in items, and kept if the server has a store."""
