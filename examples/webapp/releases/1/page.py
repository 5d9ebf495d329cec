"""Release 1: all visits."""

VISIT = "INSERT INTO visits DEFAULT VALUES"
READ = "SELECT count(*) FROM visits"
TEXT = "{} visits"
