"""What can go wrong, without a word of HTTP.

CorralError
├── InvalidRequest           the client's mistake; `param` names the field
│   ├── ContextLengthExceeded    the prompt leaves no room in the context
│   ├── UnsupportedParameter     a field or value that is not served
│   ├── PreviousNotStored        the response to go on from is not kept
│   └── RequestRefused           a request that keeps killing its worker
├── ModelNotFound            no model of that id is configured
├── NotStored                no response, or no item, of that id is kept
├── QueueFull                too many requests wait already
├── Unavailable              the model is loading or does not fit, or the server is stopping
├── Busy                     what is asked for would end requests that run
├── PullError                a file of the hub that cannot be had, or not all of it
├── ModelLoadError           the GGUF cannot be opened; carries llama.cpp's own reason
├── CommandError             what somebody typed cannot be done
├── WorkerDied               the model's process ended while the request ran
└── EngineError              llama.cpp refused a batch that we believed to be sound

Errors cross from the worker to the API process by pickle, hence the plain attributes.
"""


class CorralError(Exception):
    """Base of all errors that a client may see: `message`, and the request field it is about."""

    def __init__(self, message: str, param: str | None = None, retry_after: float | None = None):
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        """Seconds after which trying again makes sense; None where it does not."""


class InvalidRequest(CorralError):
    """The client's mistake."""


class ContextLengthExceeded(InvalidRequest):
    """The prompt leaves no room in the model's context."""


class UnsupportedParameter(InvalidRequest):
    """A field or a value of a field that is not served."""


class PreviousNotStored(InvalidRequest):
    """The response that a conversation is to go on from is not kept."""


class RequestRefused(InvalidRequest):
    """The request was running each time its worker died."""


class ModelNotFound(CorralError):
    """No model of that id is configured."""


class NotStored(CorralError):
    """No response, or no item, of that id is kept."""


class QueueFull(CorralError):
    """Too many requests wait for the model already."""


class Unavailable(CorralError):
    """The model is loading or does not fit, or the server is stopping."""


class Busy(CorralError):
    """What is asked for would end requests that run."""


class ModelLoadError(CorralError):
    """The GGUF cannot be opened."""


class PullError(CorralError):
    """A model cannot be fetched from the hub."""


class CommandError(CorralError):
    """Why a command cannot go on, in a sentence for whoever typed it."""


class WorkerDied(CorralError):
    """The model's process ended while the request was running."""


class EngineError(CorralError):
    """llama.cpp refused a batch that we believed to be sound."""
