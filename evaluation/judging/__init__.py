"""Leaderboard and gates."""
