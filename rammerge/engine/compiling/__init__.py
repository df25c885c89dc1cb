"""Block functions compiled ahead of time, kept on disk and run by a loop in C++."""
