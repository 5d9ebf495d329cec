"""What is measured and logged: taken in, kept, asked for."""
