"""A fitted model: its predictions, its files, and its conversion from and to scikit-learn's classes."""
