"""An Xauthority file that python-xlib understands: it does not know the wildcard of the desktop's.

``python3 -m benchmarks.inside.authority PATH`` writes there the same cookie for this host's name.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from pathlib import Path

FAMILY_LOCAL = 256


def main(path: str) -> None:
    cookie = Path(os.environ["XAUTHORITY"]).read_bytes()[-16:]
    fields = (socket.gethostname().encode(), b"", b"MIT-MAGIC-COOKIE-1", cookie)
    entry = struct.pack(">H", FAMILY_LOCAL)
    entry += b"".join(struct.pack(">H", len(field)) + field for field in fields)
    Path(path).write_bytes(entry)


if __name__ == "__main__":
    main(sys.argv[1])
