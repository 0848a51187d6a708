"""Remote tritonservers as a backend: which of them gets a batch, and how it gets there and back."""
