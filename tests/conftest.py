"""What holds for all tests.

Children obey the signals that tests send, also where ``nohup`` or ``&`` has the tests ignore them. Small networks are
fastest on one thread, and two that wait for each other are many times slower as soon as another program has a core.
"""

import signal

import torch

signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
