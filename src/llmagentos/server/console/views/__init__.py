"""From what the system knows to what templates show: pure functions, one file per noun."""
