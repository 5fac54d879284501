"""What a BIRD says of itself: its text as values, why a session is down, RIB beside FIB. Pure."""
