"""The wire: one schema per wire type, and the client of the server's API. Imports only `core`."""
