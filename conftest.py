"""Tests send Ctrl-C to programs they start. A shell ignores it in what it starts in the background, and that is passed
on to children, so a test run in the background would wait for programs that cannot be interrupted."""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
