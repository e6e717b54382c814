"""`python -m simulations.lab.front`, under the name that tests use."""

from simulations.lab.front.__main__ import main

if __name__ == "__main__":
    main()
