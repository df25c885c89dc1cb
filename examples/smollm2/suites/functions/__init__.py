"""The suite `smollm2_functions`: how completions are scored."""
