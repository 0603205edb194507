"""LangChain's own integration tests, over ChatOpenAI and OpenAIEmbeddings at our address.

What is skipped is not served: images, audio, PDFs. What is expected to fail asks more of a model
of 135 million parameters than it can do; a lucky answer is no failure of the server either.
"""

import os

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests

URL = f"{os.environ['CORRAL_URL']}/v1"
MODEL = os.environ["CORRAL_MODEL"]
OTHER = os.environ["CORRAL_OTHER"]

PARAMS = {
    "model": MODEL,
    "base_url": URL,
    "api_key": "none",
    "temperature": 0,
    "max_retries": 0,
    "stream_usage": True,
    # A small model says the same thing over and over.
    "max_tokens": 400,
    "extra_body": {"repeat_penalty": 1.15, "repeat_last_n": 200},
}


class TestChat(ChatModelIntegrationTests):
    """/v1/chat/completions."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, object]:
        return {**PARAMS}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return OTHER

    @pytest.mark.xfail(reason="the model calls the tool, with another number than the one it read")
    def test_tool_calling(self, model: BaseChatModel) -> None:
        super().test_tool_calling(model)

    @pytest.mark.xfail(reason="the model calls the tool, with another number than the one it read")
    async def test_tool_calling_async(self, model: BaseChatModel) -> None:
        await super().test_tool_calling_async(model)

    @pytest.mark.xfail(reason="the model calls the tool, with an empty text")
    def test_bind_runnables_as_tools(self, model: BaseChatModel) -> None:
        super().test_bind_runnables_as_tools(model)

    @pytest.mark.xfail(reason="the model calls the tool more than once")
    def test_tool_calling_with_no_arguments(self, model: BaseChatModel) -> None:
        super().test_tool_calling_with_no_arguments(model)

    @pytest.mark.xfail(reason="the model does not come to call a tool by itself")
    def test_agent_loop(self, model: BaseChatModel) -> None:
        super().test_agent_loop(model)

    @pytest.mark.xfail(reason="the model calls the tool, and does not write Chinese")
    def test_unicode_tool_call_integration(self, model: BaseChatModel) -> None:
        super().test_unicode_tool_call_integration(model)

    @pytest.mark.xfail(reason="the model writes JSON, but not with the keys that it was told")
    def test_json_mode(self, model: BaseChatModel) -> None:
        super().test_json_mode(model)


class TestResponses(TestChat):
    """/v1/responses."""

    @property
    def chat_model_params(self) -> dict[str, object]:
        return {**PARAMS, "use_responses_api": True}


class TestEmbeddings(EmbeddingsIntegrationTests):
    """/v1/embeddings, asked for texts: by default it sends the token ids of another tokenizer."""

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, object]:
        return {
            "model": MODEL,
            "base_url": URL,
            "api_key": "none",
            "check_embedding_ctx_length": False,
        }
