"""`chat_template`, `documents`: the template that a request asks for, what is for it alone."""

from collections.abc import Callable
from typing import TypeVar

from fastapi import Request
from pydantic import Field

from server.api.body import Body
from server.api.deps import INLINE_BYTES, aside, services_of
from server.api.openai.documents import Document
from server.chat.choice import is_jinja
from server.chat.template import MAX_SOURCE
from server.errors import UnsupportedParameter

T = TypeVar("T")


class Templated(Body):
    """What a request says of its template."""

    chat_template: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_SOURCE,
        description="a name of templates/; or jinja, where the configuration allows it",
    )
    chat_template_kwargs: dict[str, object] = Field(
        default_factory=dict[str, object], description="variables of the chat template"
    )

    documents: tuple[Document, ...] = Field(
        default=(), description="where the answer is to be found, for templates that take them"
    )

    async def rendered(self, request: Request, n_bytes: int, work: Callable[[], T]) -> T:
        """What `work` makes of the template and of `n_bytes`. Raises UnsupportedParameter."""
        if self.chat_template is None or not is_jinja(self.chat_template):
            return await aside(n_bytes, work)
        if not services_of(request).config.server.client_templates:
            raise UnsupportedParameter(
                "chat_template: templates of clients are switched off (server.client_templates); "
                "a name of templates/ is served",
                param="chat_template",
            )
        # It may use its whole second up: not where everybody waits.
        return await aside(INLINE_BYTES + 1, work)
