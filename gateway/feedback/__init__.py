"""How answers turned out, as callers report it: read, checked, counted once. Both the data plane and the control plane
take reports, by this package; they meet in the store.
"""
