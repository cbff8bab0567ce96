"""Data on its way in: checks, targets, rows in memory and out of core, batches; and arrays on their way back."""
