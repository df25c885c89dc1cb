"""The suite `smollm2_recall`: how completions are scored."""
