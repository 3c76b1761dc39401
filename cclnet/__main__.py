"""``python -m cclnet COMMAND``, the same as ``cclnet COMMAND``."""

from collections.abc import Sequence

from cclnet.system.errors import errors_in_one_line


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name, by default those of the process, and end with its exit status."""
    with errors_in_one_line("cclnet"):
        from cclnet.cli.program import app

        app(arguments, prog_name="cclnet")


if __name__ == "__main__":
    main()
