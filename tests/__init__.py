"""The tests mirror the rooms of the project; each file opens with the contract that it protects."""
