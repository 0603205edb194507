"""The Hugging Face hub, as its library sees it: repositories, token, cache, and what goes wrong."""

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx2
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from server.errors import InvalidRequest, PullError
from server.pool.download import PAUSES
from server.pool.offers import RemoteFile

DIGEST = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
PATH = re.compile(r"[^/\\\0][^\\\0]*")


class Fetcher(Protocol):
    """What we call of the library's client, whose own annotations are not complete."""

    def hf_hub_download(
        self,
        repo_id: str,
        filename: str,
        *,
        revision: str,
        cache_dir: Path,
        local_dir: Path | None,
    ) -> str: ...


@dataclass(frozen=True, slots=True)
class Hub:
    """Where models come from and go to. None: as the hub's environment variables say."""

    endpoint: str | None = None
    token: str | None = None
    cache: Path | None = None
    pauses: Sequence[float] = PAUSES
    """Seconds between attempts."""
    http_limit: int = constants.MAX_HTTP_DOWNLOAD_SIZE
    """Bytes of the largest file that the hub sends by HTTP; larger ones come by its own protocol,
    through the library alone, and begin anew when they break off."""

    @property
    def url(self) -> str:
        return self.endpoint or constants.ENDPOINT

    def client(self) -> HfApi:
        """The library's."""
        return HfApi(endpoint=self.endpoint, token=self.token, library_name="corral")

    def fetcher(self) -> Fetcher:
        """The same."""
        return self.client()

    def headers(self) -> dict[str, str]:
        """What tells the hub who asks."""
        token = self.token or get_token()
        return {"authorization": f"Bearer {token}"} if token else {}

    @property
    def cache_dir(self) -> Path:
        return (self.cache or Path(constants.HF_HUB_CACHE)).expanduser().resolve()


def listing(hub: Hub, repo: str, revision: str) -> tuple[str, list[RemoteFile]]:
    """The commit that the revision stands for, and its files."""
    info = hub.client().model_info(
        repo,
        revision=revision,
        files_metadata=True,
        timeout=constants.HF_HUB_ETAG_TIMEOUT,
    )
    files = [
        RemoteFile(
            sibling.rfilename,
            (sibling.lfs.size if sibling.lfs else sibling.size) or 0,
            (sibling.lfs.sha256 if sibling.lfs else sibling.blob_id) or "",
        )
        for sibling in info.siblings or ()
    ]
    if info.sha is None:
        raise PullError(f"{hub.url} does not say the commit of {repo}")
    for file in files:
        _check(hub, file)
    return info.sha, files


def _check(hub: Hub, file: RemoteFile) -> None:
    """Let nothing through that would be written outside of its folder."""
    if not DIGEST.fullmatch(file.digest):
        raise PullError(f"{hub.url} gives no checksum of {file.path}: {file.digest!r}")
    if not PATH.fullmatch(file.path) or ".." in file.path.split("/"):
        raise PullError(f"{hub.url} lists a file by a path that is none: {file.path!r}")


@contextmanager
def told(hub: Hub, repo: str) -> Generator[None]:
    """Say in a sentence what the library raises."""
    try:
        yield
    except OfflineModeIsEnabled:
        raise PullError(
            f"HF_HUB_OFFLINE is set, so {repo} cannot be fetched; unset it, or serve a file that "
            f"is in {hub.cache_dir}"
        ) from None
    except GatedRepoError as error:
        token = error.response.request.headers.get("authorization")
        todo = "ask for access" if token else "ask for access and set HF_TOKEN"
        raise PullError(f"{repo} is gated: {todo} at {hub.url}/{repo}") from error
    except RepositoryNotFoundError as error:
        raise InvalidRequest(
            f"there is no model {repo} at {hub.url}, or HF_TOKEN does not open it",
            "repo",
        ) from error
    except RevisionNotFoundError as error:
        raise InvalidRequest(f"{repo} has no such revision", "revision") from error
    except HFValidationError as error:
        raise InvalidRequest(f"{repo!r} is no repository: OWNER/NAME is", "repo") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        why = ": the token (HF_TOKEN) is not accepted" if status == 401 else ""
        raise PullError(f"{hub.url} answers {status} about {repo}{why}") from error
    except httpx2.HTTPError as error:
        raise PullError(f"cannot reach {hub.url}: {error}") from error
    except OSError as error:
        raise PullError(f"{repo}: {error}") from error
