"""How agents talk to Carrel: MCP over HTTP and stdio, and the demo that uses it."""
