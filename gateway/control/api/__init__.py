"""The control plane's paths, one file per noun."""
