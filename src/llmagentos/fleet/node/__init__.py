"""The node agent: makes a machine a node. It pulls its jobs, keeps modules running, and says how the machine is.

It reaches the server over HTTP(S) with its own identity and nothing else of the system.
"""
