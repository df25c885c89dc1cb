"""Methods that compute each element from the same element of every agent."""
