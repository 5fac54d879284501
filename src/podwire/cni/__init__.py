"""The CNI wire protocol and the thin plugin program."""
