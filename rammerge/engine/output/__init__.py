"""Where the output goes, and how it is written."""
