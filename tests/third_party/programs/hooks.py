"""Has what schemathesis thinks up reach a model more often, and not keep it busy for long."""

import os

import schemathesis

MOST_TOKENS = 8
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")

RARELY_RIGHT = ("conversation", "previous_response_id", "prompt", "text", "tool_choice", "tools")
"""Fields of a response that are made up wrong so often that little else would be tried."""


@schemathesis.hook
def before_load_schema(_, schema):
    """Events as OpenAI's document has them, by their data; here they would be read as a whole.

    tests/contract/test_own_document.py holds streams against the document.
    """
    for path in schema["paths"].values():
        for operation in path.values():
            for response in operation["responses"].values():
                response.get("content", {}).get("text/event-stream", {}).pop("schema", None)


@schemathesis.hook
def map_body(context, body):
    """Bodies of a model that there is, most of the time, and with small limits."""
    if not isinstance(body, dict):
        return body
    if isinstance(body.get("model"), str) and len(body["model"]) % 8:
        body["model"] = os.environ["CORRAL_MODEL"]
    if context.operation.path == "/v1/responses" and len(str(body)) % 4:
        body["input"] = body.get("input") or "Hi"
        for name in RARELY_RIGHT:
            body.pop(name, None)
    for limit in LIMITS:
        if isinstance(body.get(limit), int) and body[limit] > MOST_TOKENS:
            body[limit] = MOST_TOKENS
    if "inputs" in body:
        given = body.get("parameters")
        parameters = given if isinstance(given, dict) else {}
        body["parameters"] = {**parameters, "max_new_tokens": MOST_TOKENS}
    return body
