"""Imported first by the process that loads torch: Ctrl-C ends the loading at once, without a traceback."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked until here by whoever started this process
