"""Desktops as containers of one machine: by the API that Docker and Podman both speak.

``api`` speaks it, ``options`` are its settings, ``specs`` (pure) say what a desktop is in it,
``supervisor`` holds one, and ``checks`` say what a machine lacks.
"""
