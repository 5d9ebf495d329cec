"""Services: modules that host them, the registry that knows them, the wire between, and the client."""
