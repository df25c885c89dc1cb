"""The suite `zoo_memory`: how completions are scored."""
