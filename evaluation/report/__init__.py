"""Results as figures and tables."""
