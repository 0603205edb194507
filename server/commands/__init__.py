"""The commands of the CLI, each imported when it runs."""
