"""Check the links of a built site, also those that MkDocs does not see (in HTML and in docstrings).

    python docs/site/links.py build/site

Prints every relative link or picture whose file or anchor is missing; then the exit status is 1.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page and the anchors that it offers."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value is not None:
                self.links.append(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def broken_links(site: Path) -> list[str]:
    """``PAGE: LINK`` of every link that leads nowhere within the site, sorted."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            folder = site.resolve() if address.path.startswith("/") else path.parent
            target = (folder / unquote(address.path).lstrip("/")).resolve() if address.path else path
            target = target / "index.html" if target.is_dir() else target
            known = target.is_file() and (target not in pages or unquote(address.fragment) in pages[target].anchors)
            if not known:
                broken.append(f"{path.relative_to(site.resolve())}: {link}")
    return sorted(set(broken))


def main(site: Path) -> int:
    broken = broken_links(site)
    print("\n".join(broken) or f"all links within {site} lead somewhere")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
