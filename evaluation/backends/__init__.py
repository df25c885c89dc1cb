"""Where models run: loading them, decoding settings, threads."""
