"""Servers inside desktops, reached from outside: each on an origin of its own, or by a path.

:mod:`.origins` names them; :mod:`.layer` answers on those origins; :mod:`.forwarding` carries
requests and WebSockets, cleaned by :mod:`.cleaning`, through :mod:`.tunnel` to the desktop. A page
that an agent serves so never shares an origin with the dashboard, and gets no key of its visitor's.
"""
