"""``python -m cclnet COMMAND`` is the same as ``cclnet COMMAND``."""

from collections.abc import Sequence

from cclnet.system.errors import errors_in_one_line


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command given by the arguments (by default those of the process) and exit with its status."""
    with errors_in_one_line("cclnet"):
        from cclnet.cli.program import app

        app(arguments, prog_name="cclnet")


if __name__ == "__main__":
    main()
