"""``python -m cclnet COMMAND``, the same as ``cclnet COMMAND``."""

from cclnet.cli.program import main

if __name__ == "__main__":
    main()
