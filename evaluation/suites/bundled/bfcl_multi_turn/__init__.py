"""BFCL's conversations: several requests of a user, and functions that change a world."""
