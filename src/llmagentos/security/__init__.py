"""Identities, tokens, roles, secrets, certificates, redaction."""
