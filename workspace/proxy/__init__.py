"""The filtering proxy outside a sandbox: the one way out that its programs have.

It accepts on a socket that lies in the sandbox's own network (:mod:`workspace.proxy.joining`), so
nothing inside relays a byte. HTTP, CONNECT and SOCKS5 are told apart by their first byte. Names are
resolved out here, every address is looked at, and what was looked at is what is connected to.
"""
