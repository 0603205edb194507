"""How a response begins: what was asked for, with all defaults filled in."""

import time
from collections.abc import Mapping

from server.api.openai.reply import Job
from server.api.openai.responses.items import new_id
from server.api.openai.responses.request import ResponsesRequest, TextFormat
from server.api.openai.responses.resource import FunctionTool, ResponseObject
from server.api.openai.responses.tools import AllowedTools, NamedTool


def begin(body: ResponsesRequest, job: Job, kept: bool) -> ResponseObject:
    """The response before its first token. Tools that are not served are not in it."""
    return ResponseObject(
        id=new_id("resp"),
        created_at=int(time.time()),
        status="queued" if body.background else "in_progress",
        background=body.background,
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        max_tool_calls=body.max_tool_calls,
        model=job.worker.model,
        parallel_tool_calls=body.parallel_tool_calls,
        previous_response_id=body.previous_response_id,
        prompt_cache_key=body.prompt_cache_key,
        reasoning={"effort": body.reasoning.effort, "summary": None},
        safety_identifier=body.safety_identifier,
        store=kept,
        temperature=job.sampling.temperature,
        text={"format": _format(body.text.format), "verbosity": body.text.verbosity or "medium"},
        tool_choice=_choice(body),
        tools=[
            FunctionTool(
                name=tool.name,
                description=tool.description,
                parameters=tool.parameters,
                strict=tool.strict,
            )
            for tool in body.functions.values()
        ],
        top_logprobs=body.top_logprobs,
        top_p=job.sampling.top_p,
        truncation=body.truncation,
        user=body.user,
        metadata=body.metadata,
    )


def _format(format: TextFormat) -> Mapping[str, object]:
    if format.type != "json_schema":
        return {"type": format.type}
    described = {} if format.description is None else {"description": format.description}
    schema = {"name": format.name, "schema": format.schema_, "strict": bool(format.strict)}
    return {"type": "json_schema", **described, **schema}


def _choice(body: ResponsesRequest) -> str | Mapping[str, object]:
    choice = body.tool_choice
    match choice:
        case "none" | "auto" | "required":
            return choice
        case NamedTool(type="function"):
            return {"type": "function", "name": choice.name}
        case NamedTool():
            return "auto"
        case AllowedTools():
            tools = [
                {"type": "function", "name": tool.name}
                for tool in choice.tools
                if tool.type == "function"
            ]
            return {"type": "allowed_tools", "mode": choice.mode, "tools": tools}
