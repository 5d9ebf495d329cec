"""The record of truth: database, migrations, one file per noun, blobs."""
