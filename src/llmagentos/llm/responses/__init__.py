"""The Responses API in front of the gate: every response is one chat call."""
