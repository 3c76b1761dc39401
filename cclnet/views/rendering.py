"""What all pages share: templates, formats of numbers, drawing libraries, the policy for scripts, pictures."""

import base64
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from cclnet.dataset.isic import CLASS_NAMES

PAGES = Path(__file__).parent / "pages"


def page_environment() -> Environment:
    """What fills the templates of pages: everything is escaped."""
    environment = Environment(
        loader=FileSystemLoader(PAGES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    formats = (decimals, probability, setting, signed)
    environment.filters |= {function.__name__: function for function in formats}
    return environment


def full_names(classes: Iterable[str]) -> dict[str, str]:
    """The names of classes for captions: the meaning of an abbreviation, if it is known."""
    return {name: CLASS_NAMES.get(name, name) for name in classes}


def decimals(value: float | None, places: int = 3) -> str:
    """Format a number; a dash for None and NaN."""
    return "–" if value is None or math.isnan(value) else f"{value:.{places}f}".replace("-", "−")


def signed(value: float | None, places: int = 3) -> str:
    """Format a difference with its sign, 0 without; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return "–"
    rounded = round(value, places)
    return f"{rounded:+.{places}f}".replace("-", "−") if rounded else f"{0:.{places}f}"


def probability(p: float | None) -> str:
    """Format a p-value with four decimals, never as 0; a dash if not tested."""
    return "<0.0001" if p is not None and p < 0.0001 else decimals(p, 4)


def setting(value: Any) -> str:
    """A param in the notation of ``params.yaml``."""
    return value if isinstance(value, str) else json.dumps(value)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings: ``{"sample": {"seed": 0}}`` becomes ``{"sample.seed": 0}``."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def png(image: Image.Image) -> str:
    """An image as PNG in base64."""
    picture = io.BytesIO()
    image.save(picture, format="PNG")
    return base64.b64encode(picture.getvalue()).decode("ascii")


def drawing_libraries() -> str:
    """The script elements of Vega, Vega-Lite and Vega-Embed with their licences, from the page of DVC's plots."""
    return "\n".join(re.findall(r"<!-- Vega.*?-->|<script data-file=.*?</script>", _page("plots.html"), re.DOTALL))


def script_sources() -> str:
    """The hashes of all allowed scripts for the Content-Security-Policy: the libraries and the one that uses them."""
    scripts = re.findall(
        r"<script(?: data-file=[^>]*)?>(.*?)</script>", drawing_libraries() + _page("draw.html"), re.DOTALL
    )
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


def _page(name: str) -> str:
    return (PAGES / name).read_text(encoding="utf-8")
