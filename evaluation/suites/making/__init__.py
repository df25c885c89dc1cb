"""What the `prepare` modules of bundled suites share. Changing a file here prepares the items of all of them anew."""
