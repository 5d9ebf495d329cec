"""A discrete-event simulator: replays traces of agent runs against any policy and engine model, without sleeping."""
