"""A2A: our agents as A2A agents for others, and others' as tools of ours.

The package `a2a-sdk` is an extra: `cards`, `serving` and `client` import it, and they are imported when they are
first needed.
"""
