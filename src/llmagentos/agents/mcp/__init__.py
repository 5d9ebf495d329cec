"""MCP: the tools of other programs for our agents, and our agents and services as tools for others.

The package `mcp` is an extra and takes a while to import: only `session`, `stdio` and `outward` import it,
and they are imported when the first server is used.
"""
