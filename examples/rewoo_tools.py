"""What rewoo.py lends to plans: a search of text files, a scraper of some hosts, links of a text.

They are apart because they know nothing of plans: text goes in, text comes out, or a ToolError.
"""

import asyncio
import heapq
import math
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import httpx2

WORD = re.compile(r"\w+")
LINK = re.compile(r"https?://[^\s<>\"'()\[\]]*[^\s<>\"'()\[\].,;:?!]")

N_FOUND = 3
"""Paragraphs that a search finds."""

MAX_LINKS = 3
MAX_HOPS = 4
MAX_BYTES = 2**20
"""Of a page."""

LIMIT_S = 15.0
"""For a page, with all redirects that lead to it."""


class ToolError(Exception):
    """Why a tool has nothing to give."""


def links_in(text: str) -> list[str]:
    """The addresses in a text, each once."""
    return list(dict.fromkeys(LINK.findall(text)))


def extract_links(text: str) -> str:
    """The addresses in a text, a line for each. Raises ToolError if there are none."""
    links = links_in(text)
    if not links:
        raise ToolError("there are no links in the input")
    return "\n".join(links)


class Search:
    """Finds paragraphs of a folder's .txt and .md files by BM25."""

    def __init__(self, folder: Path):
        root = folder.resolve()
        self._paragraphs = [
            f"{path.relative_to(folder)}:\n{text.strip()}"
            for path in sorted(folder.rglob("*"))
            if path.suffix in (".txt", ".md")
            and path.is_file()
            # Not by way of a link to somewhere else.
            and path.resolve().is_relative_to(root)
            for text in re.split(r"\n\s*\n", path.read_text(encoding="utf-8", errors="replace"))
            if text.strip()
        ]
        if not self._paragraphs:
            raise ToolError(f"{folder}: there is no .txt and no .md file with text in it")
        self._words = [Counter(WORD.findall(text.lower())) for text in self._paragraphs]
        self._spread = Counter(word for words in self._words for word in words)
        self._mean = sum(words.total() for words in self._words) / len(self._words)

    def __call__(self, query: str) -> str:
        """The best paragraphs, the best one first. Raises ToolError if none has a word of it."""
        asked = set(WORD.findall(query.lower()))
        scores = [sum(self._score(words, word) for word in asked) for words in self._words]
        best = heapq.nlargest(N_FOUND, range(len(scores)), key=scores.__getitem__)
        found = [self._paragraphs[i] for i in best if scores[i] > 0]
        if not found:
            raise ToolError("no document has a word of the input")
        return "\n\n".join(found)

    def _score(self, words: Counter[str], word: str) -> float:
        n = self._spread[word]
        rarity = math.log(1 + (len(self._words) - n + 0.5) / (n + 0.5))
        length = 0.25 + 0.75 * words.total() / self._mean
        return rarity * words[word] * 2.5 / (words[word] + 1.5 * length)


class Scraper:
    """Loads pages of the allowed hosts: `name`, or `name:port` where the port is another."""

    def __init__(self, hosts: Iterable[str]):
        self._hosts = frozenset(host.lower() for host in hosts)

    def __call__(self, text: str) -> str:
        """The pages that the text links to. Raises ToolError if none of them can be had."""
        links = links_in(text)
        if not links:
            raise ToolError("there are no links in the input")
        pages: list[str] = []
        faults: list[str] = []
        for link in links[:MAX_LINKS]:
            try:
                pages.append(f"{link}\n{asyncio.run(self._load(link))}")
            except ToolError as error:
                faults.append(f"{link} cannot be loaded: {error}")
        if not pages:
            raise ToolError("; ".join(faults))
        left_out = [f"{link} is one too many" for link in links[MAX_LINKS:]]
        return "\n\n".join((*pages, *faults, *left_out))

    async def _load(self, link: str) -> str:
        headers = {"accept": "text/html, text/plain", "accept-encoding": "identity"}
        try:
            async with asyncio.timeout(LIMIT_S), httpx2.AsyncClient(headers=headers) as client:
                request = client.build_request("GET", link)
                for _ in range(MAX_HOPS):
                    self._check(request.url)
                    response = await client.send(request, stream=True)
                    try:
                        if response.next_request is None:
                            return await _read(response)
                        request = response.next_request
                    finally:
                        await response.aclose()
        except TimeoutError:
            raise ToolError(f"it takes longer than {LIMIT_S:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ToolError(str(error) or type(error).__name__) from error
        raise ToolError(f"more than {MAX_HOPS - 1} redirects")

    def _check(self, url: httpx2.URL) -> None:
        """Of each hop: a redirect may lead anywhere."""
        if url.scheme not in ("http", "https"):
            raise ToolError(f"{url.scheme}: is neither http nor https")
        if url.netloc.decode() not in self._hosts:
            raise ToolError(f"the host {url.netloc.decode()} is not allowed")


async def _read(response: httpx2.Response) -> str:
    """The text of a page. Raises ToolError."""
    if response.status_code != 200:
        raise ToolError(f"status {response.status_code}")
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("text/html", "text/plain", "application/xhtml+xml"):
        raise ToolError(f"it is {kind or 'of no type'}, no text")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise ToolError("it is compressed")
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_BYTES:
            raise ToolError(f"it is larger than {MAX_BYTES:,} bytes")
    try:
        text = body.decode(response.charset_encoding or "utf-8", errors="replace")
    except (LookupError, ValueError):
        text = body.decode("utf-8", errors="replace")
    return text.strip() if kind == "text/plain" else text_of(text, str(response.url))


def text_of(html: str, url: str) -> str:
    """The text of a page, a line for each block, with addresses behind links."""
    page = _Page(url)
    page.feed(html)
    page.close()
    lines = (" ".join(line.split()) for line in "".join(page.parts).splitlines())
    return "\n".join(filter(None, lines))


class _Page(HTMLParser):
    HIDDEN = frozenset({"script", "style", "template", "noscript", "svg"})
    INLINE = frozenset({"a", "abbr", "b", "cite", "code", "em", "i", "img", "span", "strong", "u"})

    def __init__(self, url: str):
        super().__init__()
        self.parts: list[str] = []
        self._url = url
        self._link = ""
        self._n_hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._n_hidden += tag in self.HIDDEN
        if tag == "a":
            with suppress(ValueError):
                self._link = urljoin(self._url, dict(attrs).get("href") or "")
        elif tag not in self.INLINE:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._n_hidden -= tag in self.HIDDEN and self._n_hidden > 0
        if tag == "a" and self._link.startswith("http") and not self._n_hidden:
            self.parts.append(f" ({self._link})")
            self._link = ""
        elif tag not in self.INLINE:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._n_hidden:
            # Line breaks of the source are spaces.
            self.parts.append(" ".join(re.split(r"\s+", data)))
