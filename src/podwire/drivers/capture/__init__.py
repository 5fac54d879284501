"""Capture: send a packet with a cookie in it, and see at which links it really passes."""
