"""The only code that touches the world: kernel, files, processes, clock."""
