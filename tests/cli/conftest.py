"""Children obey the signals that tests send, also where the tests themselves were started by ``nohup`` or with ``&``."""

import signal

signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
