"""The IDE of a desktop: which one, its life, and how it is asked.

Imported by nothing that a desktop without one loads.
"""
