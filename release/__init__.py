"""What makes a release: the lock of its dependencies, its bill of materials, and files that anyone can build again."""
