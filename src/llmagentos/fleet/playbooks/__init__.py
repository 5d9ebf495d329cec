"""Playbooks and inventories, checked before anything is queued. Pure: text in, what it means or one error out."""
