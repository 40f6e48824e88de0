"""`--workers`: several processes that serve one port, and the one that looks after them.

Nothing is imported here: the first moments of a worker need one name of this package, quickly.

Problem: Python runs on one core, so one process carries what one core can encrypt.

Choice: a supervisor opens the port, and starts the workers as new processes of the same command,
which inherit the listening socket. Each of them accepts, reads the identity and runs its own loop;
no byte of a client passes the supervisor. `fork` is no option, because threads and trio's loop do
not survive it.

Between the supervisor and each worker is a channel, a pair of connected sockets. It carries
commands and numbers, and its end tells either side that the other one is gone: a worker whose
supervisor was killed drains and ends. Commands are not signals, because Ctrl-C and systemd send
their signals to every process of a group: the workers would get them twice, and the second SIGINT
or SIGTERM means to end at once.
"""
