"""The Berkeley Function Calling Leaderboard: the parts of one turn whose calls are compared with possible answers."""
