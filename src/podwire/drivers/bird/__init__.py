"""BIRD from outside: its control socket, its program, and what a session's TCP port answers.

control    one conversation over the control socket
program    finding BIRD, its version, checking a file, the words that start it
observe    everything one BIRD says of itself
probe      whether somebody answers on the port of a session
"""
