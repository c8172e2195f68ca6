"""What reaches out of a line after a decision: hooks that serve, register and tell. Nothing decides here."""
