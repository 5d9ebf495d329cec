"""One file per noun: constructs its implementations and hands them to its routes."""
