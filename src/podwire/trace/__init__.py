"""What becomes of a packet, told from recorded kernel state. Pure."""
