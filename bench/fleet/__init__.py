"""A fleet of real tritonservers behind the gateway, and what may befall it: counted under load."""
