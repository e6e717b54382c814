"""`simulations.lab.front`, under the name that tests use."""
