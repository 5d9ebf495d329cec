"""The web console: server-rendered pages, kept live by htmx and server-sent events."""
