"""What runs inside the desktop that is measured, by its system's Python; copied there whole.

Nothing here imports anything of Carrel: the peers would run so on any machine.
"""
