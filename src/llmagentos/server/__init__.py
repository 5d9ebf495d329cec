"""The server: wires every implementation, serves the API and the console."""
