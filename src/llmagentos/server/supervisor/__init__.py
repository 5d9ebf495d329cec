"""`llmctl up`: the processes of one machine, started, watched, restarted and stopped."""
