"""Has what schemathesis thinks up reach a model more often, and not keep it busy for long."""

import os

import schemathesis

MOST_TOKENS = 8
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


@schemathesis.hook
def map_body(_, body):
    """Bodies of a model that there is, most of the time, and with small limits."""
    if not isinstance(body, dict):
        return body
    if isinstance(body.get("model"), str) and len(body["model"]) % 8:
        body["model"] = os.environ["CORRAL_MODEL"]
    for limit in LIMITS:
        if isinstance(body.get(limit), int) and body[limit] > MOST_TOKENS:
            body[limit] = MOST_TOKENS
    return body
