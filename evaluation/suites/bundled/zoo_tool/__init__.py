"""The suite `zoo_tool`: how completions are scored."""
