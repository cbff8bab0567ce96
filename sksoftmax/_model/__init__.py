"""A fitted model: its predictions, its state in files, and its conversion from and to scikit-learn's classes."""
