"""The engine: from a trigger to a committed transition, its line, and what follows from it."""
