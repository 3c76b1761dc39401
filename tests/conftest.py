"""What every test has: Ctrl-C as at a terminal."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background job has it, and its children with it
    signal.signal(signal.SIGINT, signal.default_int_handler)
