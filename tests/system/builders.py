"""Programs that write files, for processes of their own."""

TWO_WRITERS = """
import sys, time
from pathlib import Path
from cclnet.system.writing import whole_file
path, letter, seconds = Path(sys.argv[1]), sys.argv[2].encode(), float(sys.argv[3])
end, written = time.monotonic() + seconds, 0
while written < 20 or time.monotonic() < end:
    with whole_file(path) as file:
        for _ in range(8):
            file.write(letter * 4096)
    written += 1
print(written)
"""
IS_KILLED = """
import os, signal, sys
from pathlib import Path
from cclnet.system.writing import whole_file
with whole_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
