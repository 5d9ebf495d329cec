"""The API's routes, one file per noun. Each is a function from the narrow things it needs to endpoints."""
