"""The IDEs of JetBrains (PyCharm, IntelliJ IDEA, ...), through the MCP server that is built into
them since 2025.2.

``launching`` finds one and starts it, after ``preparing`` has written what would else be asked of a
person; ``adapter`` is the one that runs: ``wire`` is its connection, ``tools`` what this version
offers, ``phases`` how it is; ``reading``, ``editing`` (over ``edits``), ``running`` (over
``testing``) and ``debugging`` do the actions.

No IDE of JetBrains could be run where this was written: names, arguments and answers are those of
the plug-in's published source and documentation, and comments say where more is assumed.
"""

from workspace.desktopd.ide.jetbrains.launching import launch

__all__ = ["launch"]
