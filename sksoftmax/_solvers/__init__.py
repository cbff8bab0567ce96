"""The solvers, one file each, their schedules of step lengths, and what they share."""
