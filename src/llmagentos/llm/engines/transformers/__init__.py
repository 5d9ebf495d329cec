"""Models of Hugging Face Transformers in a child process, with OpenAI's API on a Unix socket.

Calls are generated as one batch that changes between steps: a new call joins as soon as its prompt is
read, and leaves with its last token. Transformers' own continuous batching is not used: decision 0011.
"""
