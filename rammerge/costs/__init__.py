"""What merging costs: bytes, processor time and seconds on given machines, before anything is merged."""
