"""The server side of a service call: HTTP/1.1 on asyncio.Protocol and httptools, JSON by msgspec."""
