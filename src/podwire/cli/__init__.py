"""The command line: arguments → calls, values → tables."""
