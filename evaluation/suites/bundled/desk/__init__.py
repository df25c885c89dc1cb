"""A desk with drawers, some of them locked: find the keys, then what is wanted."""
