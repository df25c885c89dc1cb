"""The suite `smollm2_sums`: how completions are scored."""
