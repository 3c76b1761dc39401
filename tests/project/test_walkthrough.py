"""How the walk through the documentation reads its commands; ``make walkthrough`` runs them."""

import re
import subprocess

import pytest

from tests.campaigns.walkthrough import PROJECT, documents, script_of

DOCUMENT = """# Title

```bash
echo one  # and a comment
echo two \\
    three
```

`echo inline`

```python
print("not for bash")
```

<!-- not run: needs a GPU -->
```bash
exit 7
```

```
$ echo output
```

```bash
value=kept
```

```bash
echo "$value at $LINENO"
```
"""


def walk(document: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", script_of(document), "a.md"], capture_output=True, text=True, check=False)


def test_the_bash_blocks_run_in_one_shell_and_know_their_lines():
    finished = walk(DOCUMENT)
    assert finished.returncode == 0
    said = [line for line in finished.stdout.splitlines() if line and not line.startswith("[")]
    assert said == ["one", "two three", "kept at 29"]
    announced = re.findall(r"^\[ *\d+ s\] (.*)$", finished.stdout, re.MULTILINE)
    assert announced == [
        "a.md:4 $ echo one",
        "a.md:5 $ echo two three",
        "a.md:25 $ value=kept",
        'a.md:29 $ echo "$value at $LINENO"',
    ]


@pytest.mark.parametrize("command", ["false", "no-such-command", "false | cat", "(exit 3)", "cd nowhere"])
def test_a_command_that_fails_ends_the_walk_and_is_named_with_its_line(command: str):
    finished = walk(f"# Title\n\n```bash\necho before\n{command}\necho after\n```\n")
    assert finished.returncode != 0
    assert f"a.md:5: exit status {finished.returncode}" in finished.stdout
    assert "before" in finished.stdout
    assert "\nafter" not in finished.stdout


@pytest.mark.parametrize(
    ("above", "problem"),
    [
        ("<!-- not run -->", "^line 3: say why"),
        ("<!-- not run: -->", "^line 3: say why"),
        ("<!-- not run:  -->", "^line 3: say why"),
    ],
)
def test_a_block_is_left_out_for_a_reason_only(above: str, problem: str):
    with pytest.raises(ValueError, match=problem):
        script_of(f"# Title\n\n{above}\n```bash\nexit 1\n```\n")


@pytest.mark.parametrize("language", ["sh", "console"])
def test_a_block_of_another_shell_is_refused(language: str):
    with pytest.raises(ValueError, match=r"^line 3: write ```bash"):
        script_of(f"# Title\n\n```{language}\nexit 1\n```\n")


def anchors(text: str) -> set[str]:
    """What the headings of a document are called in links."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", documents())
def test_a_document_can_be_walked_and_its_links_lead_somewhere(name: str):
    text = (PROJECT / name).read_text(encoding="utf-8")
    script_of(text)
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", text):
        target = (PROJECT / name).parent / path if path else PROJECT / name
        assert target.exists(), path
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), f"{path}#{anchor}"
