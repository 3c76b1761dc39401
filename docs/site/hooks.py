"""What MkDocs does besides: the site's pages are the repository's own files, under their own paths.

So every link between them works on the site as it does in the repository. A notebook and a Python file become pages
(``examples/plug_in.ipynb.md``), and a link to a folder leads to its README.md. A page ``api/MODULE.md`` of the
navigation is made of the docstrings of that module.
"""

import json
import posixpath
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
PUBLISHED = ("*.md", "*.png", "*.cff", "examples/*", "docs/site/*.css")
AS_PAGES = (".py", ".ipynb")
LINK = re.compile(r"(?P<before>\]\()(?P<target>[^)#:\s]+)(?P<after>#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
OWN_STYLE = re.compile(r"<style.*?</style>\s*| border=\"1\" class=\"dataframe\"", re.DOTALL)
"""What a table of pandas says of its looks."""


def on_files(files: Any, config: Any) -> Any:
    """MkDocs' event: the files of the site, in the place of those of ``docs_dir``."""
    from mkdocs.structure.files import File

    for file in [file for file in files if file.src_dir == config["docs_dir"]]:
        files.remove(file)
    for path in published():
        if path.endswith(AS_PAGES):
            files.append(File.generated(config, f"{path}.md", content=page_of(PROJECT / path)))
        else:
            files.append(File.generated(config, path, abs_src_path=str(PROJECT / path)))
    for path in api_pages(config["nav"]):
        files.append(File.generated(config, path, content=api_page(Path(path).stem)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """MkDocs' event: lead a page's links to the pages that the repository's files have become."""
    return with_links_to_pages(markdown, page.file.src_uri)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """MkDocs' event: drop the ``::`` of docstrings before a block of code, which Markdown shows as it is."""
    return re.sub("::</p>", ":</p>", html.replace("<p>::</p>", "")) if page.file.src_uri.startswith("api/") else html


def published() -> list[str]:
    """The files that belong to the site, from the project's root: those that git tracks, or would if added."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *PUBLISHED]
    listed = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True)  # noqa: S603
    present = (path for path in set(listed.stdout.splitlines()) if (PROJECT / path).is_file())
    return sorted(path for path in present if not path.startswith((".", "tests/")))


def with_links_to_pages(markdown: str, page: str) -> str:
    """The text with its relative links rewritten, except in blocks of code.

    Args:
        markdown: text of a page.
        page: path of the page from the project's root.
    """

    def rewritten(link: re.Match[str]) -> str:
        target, place = link["target"], PROJECT / posixpath.join(posixpath.dirname(page), link["target"])
        if place.is_dir():
            target = posixpath.join(target, "README.md")
        elif target.endswith(AS_PAGES):
            target += ".md"
        return f"{link['before']}{target}{link['after'] or ''}"

    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(rewritten, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(rewritten, markdown[end:])])


def page_of(path: Path) -> str:
    """A Python file or a notebook as Markdown."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return f"# {path.name}\n\n```python\n{text.rstrip()}\n```\n"
    return "\n\n".join(block for cell in json.loads(text)["cells"] for block in _blocks(cell)) + "\n"


def _blocks(cell: Mapping[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            yield f'<img class="output" alt="The figure of this cell" src="data:image/png;base64,{data["image/png"]}">'
        elif "text/html" in data:
            yield f'<div class="output">{OWN_STYLE.sub("", "".join(data["text/html"]))}</div>'
        else:
            text = "".join(output.get("text") or data["text/plain"]).rstrip("\n")
            yield f"``` {{ .text .output }}\n{text}\n```"


def api_pages(nav: Sequence[Any] | Mapping[str, Any]) -> Iterator[str]:
    """The paths ``api/MODULE.md`` in a navigation."""
    for entry in nav.values() if isinstance(nav, Mapping) else nav:
        if not isinstance(entry, str):
            yield from api_pages(entry)
        elif entry.startswith("api/"):
            yield entry


def api_page(module: str) -> str:
    """A page with the documented names of a module."""
    return f"# `{module}`\n\n::: {module}\n"
