"""Release 2: visits, and how many nodes they came to."""

VISIT = "INSERT INTO visits (node) VALUES (:'node')"
READ = "SELECT count(*), count(DISTINCT node) FROM visits"
TEXT = "{} visits on {} nodes"
