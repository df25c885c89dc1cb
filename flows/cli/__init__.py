"""The program: the commands of the library and of the pipeline, assembled."""
