"""The first import of the process that loads torch: Ctrl-C ends it at once, without a traceback."""

import signal

from clipbench.execution.group_signals import leave_to_parent

signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked by the parent until here
leave_to_parent()
