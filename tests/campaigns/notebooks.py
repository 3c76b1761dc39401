"""The notebooks of ``examples/``, run from top to bottom without Jupyter.

    python -m tests.campaigns.notebooks    # run each and write its outputs into it; two minutes

As in Jupyter, a cell shows what it prints, its figures at ``plt.show()``, and the value of its last line.
"""

import ast
import base64
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

PROJECT = Path(__file__).parents[2]
NOTEBOOKS = sorted((PROJECT / "examples").glob("*.ipynb"))
DPI = 100


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def execute(notebook: dict[str, Any]) -> tuple[dict[str, Any], list[list[dict[str, Any]]]]:
    """Run all code cells: the names that they leave behind, and the outputs of each code cell in Jupyter's format."""
    names: dict[str, Any] = {"__name__": "__main__"}
    codes = [source(cell) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    with plt.rc_context({"backend": "Agg"}):
        return names, [list(_run(code, number, names)) for number, code in enumerate(codes, start=1)]


def _run(code: str, number: int, names: dict[str, Any]) -> Iterator[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    body = ast.parse(code).body
    last = body[-1].value if isinstance(body[-1], ast.Expr) else None
    with redirect_stdout(io.StringIO()) as printed, _figures_to(shown):
        exec(compile(ast.Module(body[:-1] if last else body, []), f"cell {number}", "exec"), names)  # noqa: S102 - the project's own notebooks
        value = eval(compile(ast.Expression(last), f"cell {number}", "eval"), names) if last else None  # noqa: S307
    if printed.getvalue():
        yield {"name": "stdout", "output_type": "stream", "text": printed.getvalue().splitlines(keepends=True)}
    yield from shown
    if value is not None:
        yield {"data": _forms(value), "execution_count": number, "metadata": {}, "output_type": "execute_result"}


@contextmanager
def _figures_to(outputs: list[dict[str, Any]]) -> Iterator[None]:
    """Let ``plt.show()`` add all open figures to the outputs and close them."""
    show = plt.show

    def add() -> None:
        for number in plt.get_fignums():
            file = io.BytesIO()
            plt.figure(number).savefig(file, format="png", dpi=DPI, metadata={"Software": None})
            data = {"image/png": base64.b64encode(file.getvalue()).decode()}
            outputs.append({"data": data, "metadata": {}, "output_type": "display_data"})
        plt.close("all")

    plt.show = add  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        plt.show = show


def _forms(value: Any) -> dict[str, list[str]]:
    forms = {"text/plain": repr(value).splitlines(keepends=True)}
    if hasattr(value, "_repr_html_"):
        forms = {"text/html": value._repr_html_().splitlines(keepends=True)} | forms
    return forms


def main() -> None:
    for path in NOTEBOOKS:
        notebook = read(path)
        _, outputs = execute(notebook)
        codes = (cell for cell in notebook["cells"] if cell["cell_type"] == "code")
        for number, (cell, shown) in enumerate(zip(codes, outputs, strict=True), start=1):
            cell |= {"execution_count": number, "outputs": shown}
        path.write_text(json.dumps(notebook, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
