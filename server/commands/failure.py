"""Why a command cannot go on."""


class CommandError(Exception):
    """Says it in a sentence for whoever typed the command."""
