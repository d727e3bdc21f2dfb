"""Children obey the signals that tests send, also where ``nohup`` or ``&`` has the tests ignore them."""

import signal

signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
