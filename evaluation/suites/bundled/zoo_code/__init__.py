"""The suite `zoo_code`: how completions are scored."""
