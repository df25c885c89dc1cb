"""Element-wise arithmetic: dtypes, masks, rounding and random bits."""
