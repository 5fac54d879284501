"""The one door to rtnetlink: links, addresses, routes, rules, neighbours, forwarding entries.

wire       message headers and attributes, as bytes
requests   values → messages, pure
decode     messages → values, pure
session    one socket: ask, list, apply in bulk; errno becomes an error of ours here
monitor    one socket: what changes
"""
