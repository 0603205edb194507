"""The families of public templates: how each prompt ends, and answers with their parts."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from server.chat.dialects.deepseek import CALL, CALL_END, CALLS, CALLS_END, SEPARATOR
from tests.chat.answers import Folded

OSLO = '{"city": "Oslo"}'
ASKS: Folded = [("call", "get_weather", OSLO)]


class Family(NamedTuple):
    """One template: its dialect, what its prompt ends with, and an answer with its parts."""

    file: str
    dialect: str
    end: str
    answer: str
    parts: Folded
    shown: str
    """How the first call of the history stands in the prompt."""
    variables: Mapping[str, object] = MappingProxyType({})


HERMES_CALL = '<tool_call>\n{"name": "get_weather", "arguments": %s}\n</tool_call>'
CHATML_END = "<|im_start|>assistant\n"
HARMONY = "<|start|>assistant"
FAMILIES = (
    Family(
        "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
        "hermes",
        CHATML_END,
        HERMES_CALL % OSLO,
        ASKS,
        HERMES_CALL % '{"city": "Bonn"}',
    ),
    Family(
        "Qwen-Qwen2.5-7B-Instruct",
        "hermes",
        CHATML_END,
        f"I look.\n{HERMES_CALL % OSLO}\n{HERMES_CALL % '{}'}",
        [("content", "I look."), *ASKS, ("call", "get_weather", "{}")],
        HERMES_CALL % '{"city": "Bonn"}',
    ),
    Family(
        "Qwen-Qwen3-0.6B",
        "hermes",
        CHATML_END,
        f"<think>\nOslo.\n</think>\n\n{HERMES_CALL % OSLO}",
        [("reasoning", "Oslo."), *ASKS],
        HERMES_CALL % '{"city": "Bonn"}',
    ),
    Family(
        "Qwen-QwQ-32B",
        "hermes",
        "<think>\n",
        f"Oslo.\n</think>\n\nI look.\n{HERMES_CALL % OSLO}",
        [("reasoning", "Oslo."), ("content", "I look."), *ASKS],
        HERMES_CALL % '{"city": "Bonn"}',
        {"enable_thinking": True},
    ),
    Family(
        "ibm-granite-granite-4.0",
        "hermes",
        "<|start_of_role|>assistant<|end_of_role|>",
        HERMES_CALL % OSLO,
        ASKS,
        HERMES_CALL % '{"city": "Bonn"}',
    ),
    Family(
        "ibm-granite-granite-3.3-2B-Instruct",
        "granite",
        "<|start_of_role|>assistant<|end_of_role|>",
        f'<|tool_call|>[{{"name": "get_weather", "arguments": {OSLO}}}]',
        ASKS,
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Bonn"}}, ',
    ),
    Family(
        "meta-llama-Llama-3.1-8B-Instruct",
        "llama3",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        f'{{"name": "get_weather", "parameters": {OSLO}}}',
        ASKS,
        '{"name": "get_weather", "parameters": {"city": "Bonn"}}',
    ),
    Family(
        "meta-llama-Llama-3.2-3B-Instruct",
        "llama3",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        f'<|python_tag|>{{"type": "function", "name": "get_weather", "parameters": {OSLO}}}',
        ASKS,
        '{"name": "get_weather", "parameters": {"city": "Bonn"}}',
    ),
    Family(
        "meta-llama-Llama-3.3-70B-Instruct",
        "llama3",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        '<|python_tag|>get_weather.call(city="Oslo")',
        ASKS,
        '{"name": "get_weather", "parameters": {"city": "Bonn"}}',
    ),
    Family(
        "mistralai-Mistral-Nemo-Instruct-2407",
        "mistral",
        "[/INST]",
        f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {OSLO}, "id": "abcdefghi"}}]',
        ASKS,
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Bonn"}, "id": "',
    ),
    Family(
        "Mistral-Small-3.2-24B-Instruct-2506",
        "mistral_args",
        "[/INST]",
        f"I look.[TOOL_CALLS]get_weather[CALL_ID]abcdefghi[ARGS]{OSLO}",
        [("content", "I look."), *ASKS],
        '[ARGS]{"city": "Bonn"}',
    ),
    Family(
        "mistralai-Ministral-3-14B-Reasoning-2512",
        "mistral_args",
        "[/INST]",
        f"[THINK]Oslo.[/THINK][TOOL_CALLS]get_weather[ARGS]{OSLO}",
        [("reasoning", "Oslo."), *ASKS],
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Bonn"}',
    ),
    Family(
        "CohereForAI-c4ai-command-r7b-12-2024-tool_use",
        "command_r",
        "<|START_THINKING|><|END_THINKING|>",
        '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", '
        f'"parameters": {OSLO}}}\n]<|END_ACTION|>',
        ASKS,
        '{"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city": "Bonn"}}',
    ),
    Family(
        "CohereForAI-c4ai-command-r-plus-tool_use",
        "command_r_action",
        "<|CHATBOT_TOKEN|>",
        'Action: ```json\n[\n    {\n        "tool_name": "get_weather",\n'
        f'        "parameters": {OSLO}\n    }}\n]```',
        ASKS,
        '"tool_name": "get_weather",\n        "parameters": {\n',
    ),
    Family(
        "llama-cpp-deepseek-r1",
        "deepseek",
        "<think>\n",
        f"Oslo.\n</think>\n\n{CALLS}{CALL}function{SEPARATOR}"
        f"get_weather\n```json\n{OSLO}\n```{CALL_END}{CALLS_END}",
        [("reasoning", "Oslo."), *ASKS],
        f'get_weather\n```json\n{{"city": "Bonn"}}\n```{CALL_END}',
    ),
    Family(
        "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
        "deepseek",
        "<think>\n",
        "Oslo.\n</think>\n\nFine.",
        [("reasoning", "Oslo."), ("content", "Fine.")],
        f'get_weather\n```json\n{{"city": "Bonn"}}\n```{CALL_END}',
        {"enable_thinking": True},
    ),
    Family(
        "deepseek-ai-DeepSeek-V3.1",
        "deepseek_v31",
        "</think>",
        f"I look.{CALLS}{CALL}get_weather{SEPARATOR}{OSLO}{CALL_END}{CALLS_END}",
        [("content", "I look."), *ASKS],
        f'get_weather{SEPARATOR}{{"city": "Bonn"}}{CALL_END}',
    ),
    Family(
        "openai-gpt-oss-120b",
        "gpt_oss",
        HARMONY,
        f"<|channel|>analysis<|message|>Oslo.<|end|>{HARMONY}<|channel|>commentary "
        f"to=functions.get_weather <|constrain|>json<|message|>{OSLO}<|call|>",
        [("reasoning", "Oslo."), *ASKS],
        'to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Bonn"}<|call|>',
    ),
    Family(
        "google-gemma-4-31B-it",
        "gemma",
        "<|channel>thought\n<channel|>",
        '<|tool_call>call:get_weather{city:<|"|>Oslo<|"|>}<tool_call|>',
        ASKS,
        '<|tool_call>call:get_weather{city:<|"|>Bonn<|"|>}<tool_call|>',
    ),
    Family(
        "meetkai-functionary-medium-v3.1",
        "functionary_v31",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        f"I look.\n<function=get_weather>{OSLO}</function>",
        [("content", "I look."), *ASKS],
        '<function=get_weather>{"city": "Bonn"}</function>',
    ),
    Family(
        "meetkai-functionary-medium-v3.2",
        "functionary_v32",
        ">>>",
        f"all\nI look.\n>>>get_weather\n{OSLO}",
        [("content", "I look."), *ASKS],
        '>>>get_weather\n{"city": "Bonn"}',
    ),
    Family(
        "Qwen3-Coder",
        "qwen3_coder",
        CHATML_END,
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n"
        "</function>\n</tool_call>",
        ASKS,
        "<function=get_weather>\n<parameter=city>\nBonn\n</parameter>",
    ),
    Family(
        "ByteDance-Seed-OSS",
        "seed_oss",
        "<seed:bos>assistant\n",
        "<seed:think>Oslo.</seed:think>\n<seed:tool_call>\n<function=get_weather>\n"
        "<parameter=city>Oslo</parameter>\n</function>\n</seed:tool_call>",
        [("reasoning", "Oslo."), *ASKS],
        "<parameter=city>Bonn</parameter>",
    ),
    Family(
        "google-gemma-2-2b-it",
        "generic",
        "<start_of_turn>model\n",
        f'{{"tool_calls": [{{"name": "get_weather", "arguments": {OSLO}}}]}}',
        ASKS,
        '{"tool_calls": [{"name": "get_weather", "arguments": {"city": "Bonn"}}, ',
    ),
    Family(
        "microsoft-Phi-3.5-mini-instruct",
        "generic",
        "<|assistant|>\n",
        "Just an answer.",
        [("content", "Just an answer.")],
        '{"tool_calls": [{"name": "get_weather", "arguments": {"city": "Bonn"}}, ',
    ),
)
