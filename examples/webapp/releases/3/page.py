"""Release 3 is broken on purpose: it reads a column that its schema.sql forgot to add."""

VISIT = "INSERT INTO visits (node) VALUES (:'node')"
READ = "SELECT count(*), count(DISTINCT country) FROM visits"
TEXT = "{} visits from {} countries"
