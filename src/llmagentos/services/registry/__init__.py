"""The registry's drivers. `embedded` is the server's own."""
