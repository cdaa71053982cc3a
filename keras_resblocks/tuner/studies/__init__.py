"""A search by Optuna, on any number of machines. Needs the extra `optuna`."""
