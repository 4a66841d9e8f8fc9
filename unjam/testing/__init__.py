"""What tests and benchmarks of a system built on unjam need: it ships with the package."""
