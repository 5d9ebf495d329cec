"""Ground floor: ids, clock, errors, events, config, telemetry. Imports nothing of ours."""
