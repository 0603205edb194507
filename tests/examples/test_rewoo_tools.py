"""What plans of examples/rewoo.py call, over real files and a real web site."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import rewoo_tools
from rewoo_tools import MAX_BYTES, Scraper, Search, ToolError, extract_links, text_of

from tests.examples.serving import Page, Site, page, redirect, web_site

HOURS = "The library is open from 9 to 18 on weekdays.\n\nIt is closed on Sundays.\n"
LENDING = "# Lending\n\nBooks are lent for four weeks.\n\nFilms are lent for one week."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "documents"
    (found / "deep").mkdir(parents=True)
    (found / "hours.txt").write_text(HOURS)
    (found / "deep" / "lending.md").write_text(LENDING)
    (found / "code.py").write_text("films = 'of a file that is no text'")
    return found


@pytest.fixture
def site() -> Iterator[Site]:
    with web_site() as found:
        yield found


class TestSearch:
    """Paragraphs of a folder."""

    def test_the_best_paragraph_is_the_first(self, folder: Path) -> None:
        search = Search(folder)
        assert search("How long are films lent?").split("\n\n") == [
            "deep/lending.md:\nFilms are lent for one week.",
            "deep/lending.md:\nBooks are lent for four weeks.",
        ]
        assert search("closed on SUNDAYS").startswith("hours.txt:\nIt is closed on Sundays.")

    def test_rare_words_and_short_paragraphs_count_more(self, tmp_path: Path) -> None:
        common = ["the cat of the house"] * 5
        long = "zebra " + "word " * 12
        (tmp_path / "a.txt").write_text("\n\n".join([*common, long, "a zebra"]))
        found = Search(tmp_path)("the zebra").split("\n\n")
        assert [text.split()[1] for text in found] == ["a", "zebra", "the"]

    def test_nothing_found(self, folder: Path) -> None:
        search = Search(folder)
        for query in ("xylophone", "", "?!"):
            with pytest.raises(ToolError, match="no document has a word"):
                search(query)

    def test_other_files_are_left_alone(self, folder: Path, tmp_path: Path) -> None:
        secret = tmp_path / "secret.txt"
        secret.write_text("films of others")
        (folder / "link.txt").symlink_to(secret)
        assert "films of" not in Search(folder)("films of a file that others no text")

    def test_what_is_no_utf_8_is_read_as_far_as_it_goes(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_bytes(b"caf\xe9 open")
        assert Search(tmp_path)("open") == "a.txt:\ncaf\ufffd open"

    def test_a_folder_without_text(self, tmp_path: Path) -> None:
        (tmp_path / "empty.txt").write_text(" \n\n ")
        for folder in (tmp_path, tmp_path / "missing"):
            with pytest.raises(ToolError, match=r"no \.txt and no \.md"):
                Search(folder)


class TestLinks:
    """The addresses in a text."""

    def test_links(self) -> None:
        text = (
            "See https://a.example/x?y=1, (http://b.example:80/z) and <https://a.example/x?y=1>.\n"
            "[more](https://c.example/) https:// ftp://d.example"
        )
        links = ["https://a.example/x?y=1", "http://b.example:80/z", "https://c.example/"]
        assert extract_links(text).split("\n") == links

    def test_none(self) -> None:
        with pytest.raises(ToolError, match="no links"):
            extract_links("www.example")


class TestText:
    """HTML to text."""

    def test_blocks_are_lines_and_links_keep_their_address(self) -> None:
        html = """<html><head><title>A &amp; B</title><style>p { color: red }</style></head>
            <body><h1>Head</h1><p>One <b>bold</b>
            word.<script>alert("<p>no</p>")</script></p>
            <ul><li><a href="/x?a=1&amp;b=2">Here</a></li><li><a href="mailto:x">Mail</a></li>
            <li><a>none</a></ul><template><a href="y">hidden</a></template></body></html>"""
        assert text_of(html, "http://h.example/d/") == (
            "A & B\nHead\nOne bold word.\nHere (http://h.example/x?a=1&b=2)\nMail\n"
            "none (http://h.example/d/)"
        )

    @pytest.mark.parametrize(
        ("html", "text"),
        [
            ("", ""),
            ("<p>open", "open"),
            ("</p></a></script>still", "still"),
            ("<a href='http://[x'>odd</a>", "odd"),
            ("a < b <!-- no --> & c", "a < b & c"),
            ("<script>never closed", ""),
        ],
    )
    def test_broken_html(self, html: str, text: str) -> None:
        assert text_of(html, "http://h.example/") == text


class TestScraper:
    """Pages of allowed hosts."""

    def test_pages(self, site: Site) -> None:
        site.pages["/a"] = page("<p>Ein Käse</p>".encode("latin-1"), "text/html; charset=latin-1")
        site.pages["/b"] = page(" plain <p> ", "text/plain")
        text = f"{site.link('/a')} and {site.link('/b')}."
        assert Scraper([site.host])(text) == (
            f"{site.link('/a')}\nEin Käse\n\n{site.link('/b')}\nplain <p>"
        )

    def test_a_redirect_on_the_host(self, site: Site) -> None:
        site.pages.update({"/a": redirect("b"), "/b": redirect(site.link("/c")), "/c": page("C")})
        assert Scraper([site.host])(site.link("/a")) == f"{site.link('/a')}\nC"
        assert site.seen == ["/a", "/b", "/c"]

    def test_each_redirect_is_checked(self, site: Site) -> None:
        """The same server by another name, which is not allowed, gets no request."""
        site.pages["/a"] = redirect(f"http://localhost:{site.port}/secret")
        site.pages["/secret"] = page("secret")
        with pytest.raises(ToolError, match=f"the host localhost:{site.port} is not allowed"):
            Scraper([site.host])(site.link("/a"))
        assert site.seen == ["/a"]

    @pytest.mark.parametrize(
        ("location", "reason"),
        [
            ("file:///etc/passwd", "file: is neither http nor https"),
            ("ftp://127.0.0.1/", "ftp: is neither"),
            ("//evil.example/", "the host evil.example is not allowed"),
            ("http://{host}@evil.example/", "the host evil.example is not allowed"),
            ("http://127.0.0.1:port/", "status 302"),
        ],
    )
    def test_redirects_that_lead_elsewhere(self, site: Site, location: str, reason: str) -> None:
        site.pages["/a"] = redirect(location.format(host=site.host))
        with pytest.raises(ToolError, match=reason):
            Scraper([site.host])(site.link("/a"))
        assert site.seen == ["/a"]

    def test_redirects_in_a_circle(self, site: Site) -> None:
        site.pages["/a"] = redirect("/a")
        with pytest.raises(ToolError, match="more than 3 redirects"):
            Scraper([site.host])(site.link("/a"))
        assert site.seen == ["/a"] * 4

    @pytest.mark.parametrize(
        "link",
        [
            "http://evil.example/",
            "http://127.0.0.1/",
            "http://127.0.0.1:1/",
            "https://127.0.0.1.evil.example/",
            "http://{host}@evil.example/",
            "http://user:word@evil.example/",
        ],
    )
    def test_hosts_that_are_not_allowed(self, site: Site, link: str) -> None:
        with pytest.raises(ToolError, match=r"the host \S+ is not allowed"):
            Scraper([site.host])(link.format(host=site.host))
        assert site.seen == []

    def test_a_host_is_named_with_its_port_unless_that_is_the_schemes(self, site: Site) -> None:
        with pytest.raises(ToolError, match="not allowed"):
            Scraper(["127.0.0.1"])(site.link("/"))
        with pytest.raises(ToolError) as refused:
            Scraper(["LOCALHOST"])("http://localhost:80/")
        assert "not allowed" not in str(refused.value)

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (page("gone", status=404), "status 404"),
            (page("{}", "application/json"), "application/json"),
            (page(b"\x1f\x8b", Content_Encoding="gzip"), "compressed"),
            (page(b"x" * (MAX_BYTES + 1)), "larger than 1,048,576 bytes"),
            (page("", status=304, Location="/b"), "status 304"),
        ],
    )
    def test_what_is_no_page(self, site: Site, answer: Page, reason: str) -> None:
        site.pages["/a"] = answer
        with pytest.raises(ToolError, match=f"{site.link('/a')} cannot be loaded: .*{reason}"):
            Scraper([site.host])(site.link("/a"))

    def test_a_body_without_end(self, site: Site) -> None:
        stopped = threading.Event()

        def endless(to: BaseHTTPRequestHandler) -> None:
            to.send_response(200)
            to.send_header("Content-Type", "text/plain")
            to.end_headers()
            try:
                while True:
                    to.wfile.write(b"x" * 65536)
            except OSError:
                stopped.set()

        site.pages["/a"] = endless
        with pytest.raises(ToolError, match="larger than"):
            Scraper([site.host])(site.link("/a"))
        assert stopped.wait(10)

    def test_a_server_that_takes_its_time(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that always says something, so that no single read takes long."""
        monkeypatch.setattr(rewoo_tools, "LIMIT_S", 0.5)
        done = threading.Event()

        def drip(to: BaseHTTPRequestHandler) -> None:
            to.send_response(200)
            to.send_header("Content-Type", "text/plain")
            to.end_headers()
            try:
                while not done.wait(0.05):
                    to.wfile.write(b"x")
                    to.wfile.flush()
            except OSError:
                pass

        site.pages["/a"] = drip
        try:
            with pytest.raises(ToolError, match=r"longer than 0\.5 s"):
                Scraper([site.host])(site.link("/a"))
        finally:
            done.set()

    @pytest.mark.parametrize("charset", ["none-such", "idna", "hex", "utf-16"])
    def test_odd_character_sets(self, site: Site, charset: str) -> None:
        site.pages["/a"] = page("open", f"text/plain; charset={charset}")
        assert Scraper([site.host])(site.link("/a")).startswith(site.link("/a"))

    def test_some_pages_of_several(self, site: Site) -> None:
        site.pages["/a"] = page("A")
        links = [site.link(path) for path in ("/a", "/b", "/c", "/d", "/e")]
        assert Scraper([site.host])("\n".join(links)) == (
            f"{links[0]}\nA\n\n{links[1]} cannot be loaded: status 404\n\n"
            f"{links[2]} cannot be loaded: status 404\n\n"
            f"{links[3]} is one too many\n\n{links[4]} is one too many"
        )
        assert site.seen == ["/a", "/b", "/c"]

    def test_no_links(self) -> None:
        with pytest.raises(ToolError, match="no links"):
            Scraper(["h.example"])("h.example")

    def test_nobody_there(self) -> None:
        with pytest.raises(ToolError, match="cannot be loaded: All connection attempts failed"):
            Scraper(["127.0.0.1:9"])("http://127.0.0.1:9/")
